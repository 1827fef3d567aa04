"""Float32 attention inside bf16 autocast: where it applies, and that results agree."""

import torch
import torch.nn.functional as F
from torch import Tensor

from kdnas.distill.attention import Float32Attention


def vectors(requires_grad: bool, dtype: torch.dtype = torch.bfloat16) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, 5, 8, generator=generator).to(dtype).requires_grad_(requires_grad) for _ in range(3)]


def test_what_needs_gradients_is_computed_in_float32() -> None:
    mask = torch.zeros(2, 1, 5, 5)
    mask[0, :, :, 3:] = torch.finfo(torch.float32).min
    query, key, value = vectors(True)
    with torch.autocast("cpu", dtype=torch.bfloat16), Float32Attention():
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    expected = F.scaled_dot_product_attention(query.float(), key.float(), value.float(), attn_mask=mask)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    assert query.grad is not None
    assert query.grad.dtype == torch.bfloat16


def test_what_needs_none_is_left_in_bf16() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16), Float32Attention():
        assert F.scaled_dot_product_attention(*vectors(False)).dtype == torch.bfloat16
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16


def test_autocast_is_on_again_afterwards() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16), Float32Attention():
        F.scaled_dot_product_attention(*vectors(True))
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
