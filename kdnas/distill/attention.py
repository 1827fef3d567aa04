"""Attention of a student in training on a CPU: in float32 under bf16 autocast, because its bf16 backward pass is slow."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode


class Float32Attention(TorchFunctionMode):
    """Within this context, attention that needs gradients is computed in float32 on a CPU.

    The bf16 backward kernel of scaled dot-product attention takes 3 to 10 times as long as the float32 one on short
    sentences (torch 2.13, AVX512-BF16), and was a sixth of a training step. The linear maps around it stay in bf16;
    forward passes without gradients, the teacher's, are left alone.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention or not _slow_backward(args[0]):
            return func(*args, **kwargs)
        query, key, value = (tensor.float() for tensor in args[:3])
        mask = kwargs.pop("attn_mask", None)
        if mask is not None and mask.is_floating_point():
            mask = mask.float()
        with torch.autocast("cpu", enabled=False):
            return func(query, key, value, *args[3:], attn_mask=mask, **kwargs)


def _slow_backward(query: torch.Tensor) -> bool:
    return query.requires_grad and query.dtype == torch.bfloat16 and query.device.type == "cpu"
