"""Faster training operations: where they are used, and that results and gradients agree with plain torch."""

import sys
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import profile

from kdnas.distill import fast_training
from kdnas.distill.fast_training import MATMUL_TOKENS, FastTraining, FreedMemory, keep_freed_memory
from kdnas.distill.hidden_state import student_states
from kdnas.models.arch import Arch
from kdnas.models.student import new_student
from kdnas.models.teacher import Teacher, load_encoder

LONG = MATMUL_TOKENS + 1


def vectors(tokens: int, requires_grad: bool = True) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (2, 3, tokens, 8)
    return [torch.randn(shape, generator=generator).bfloat16().requires_grad_(requires_grad) for _ in range(3)]


def masks(tokens: int) -> dict[str, dict[str, Any]]:
    real = torch.ones(2, 1, tokens, tokens, dtype=torch.bool)
    real[0, ..., tokens // 2 :] = False
    added = torch.zeros(real.shape).masked_fill(~real, torch.finfo(torch.float32).min)
    return {"none": {}, "boolean": {"attn_mask": real}, "added": {"attn_mask": added}, "scale": {"scale": 0.5}}


@pytest.mark.parametrize("mask", ["none", "boolean", "added", "scale"])
@pytest.mark.parametrize("tokens", [5, MATMUL_TOKENS, LONG])
def test_attention_agrees_with_float32(tokens: int, mask: str) -> None:
    options = masks(tokens)[mask]
    fast, exact = vectors(tokens), [vector.detach().float().requires_grad_() for vector in vectors(tokens)]
    with torch.autocast("cpu", dtype=torch.bfloat16), FastTraining():
        found = F.scaled_dot_product_attention(*fast, **options)
    expected = F.scaled_dot_product_attention(*exact, **options)
    torch.testing.assert_close(found.float(), expected, atol=0.02, rtol=0.02)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    (found.float() * weights).sum().backward()
    (expected * weights).sum().backward()
    for ours, theirs in zip(fast, exact, strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        assert ours.grad.dtype == torch.bfloat16
        torch.testing.assert_close(ours.grad.float(), theirs.grad, atol=0.03, rtol=0.03)


def test_causal_attention_agrees_with_float32() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16), FastTraining():
        found = F.scaled_dot_product_attention(*vectors(6), is_causal=True)
    expected = F.scaled_dot_product_attention(*(vector.float() for vector in vectors(6)), is_causal=True)
    torch.testing.assert_close(found.float(), expected, atol=0.02, rtol=0.02)


@pytest.mark.parametrize("tokens", [5, LONG])
def test_dropout_in_attention(tokens: int) -> None:
    """With a dropout of almost 1, most outputs are zero."""
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype=torch.bfloat16), FastTraining():
        found = F.scaled_dot_product_attention(*vectors(tokens), dropout_p=0.999)
    assert (found == 0).float().mean() > 0.5


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_agrees_with_torch_in_expectation(fraction: float, dtype: torch.dtype) -> None:
    values = torch.ones(400, 1000, dtype=dtype, requires_grad=True)
    torch.manual_seed(3)
    with FastTraining():
        found = F.dropout(values, fraction, training=True)
        again = F.dropout(values, fraction, training=True)
    found.float().sum().backward()
    assert found.dtype == dtype
    assert (found == 0).float().mean().item() == pytest.approx(fraction, abs=0.005)
    assert found.float().mean().item() == pytest.approx(float(fraction < 1), abs=0.02)
    torch.testing.assert_close(values.grad, found.detach())  # the scale of the kept values
    assert torch.equal(found, again) == (fraction in (0, 1))
    torch.manual_seed(3)
    with FastTraining():
        assert torch.equal(F.dropout(values, fraction, training=True), found)


def test_dropout_is_off_outside_training() -> None:
    values = torch.ones(50, requires_grad=True)
    with FastTraining():
        assert torch.equal(F.dropout(values, 0.5, training=False), values)
        assert torch.equal(torch.nn.Dropout(0.5).eval()(values), values)
        assert (torch.nn.Dropout(0.5)(values) == 0).any()
        assert (F.dropout(values.detach(), 0.5) == 0).any()  # not trained, so torch's dropout is used


def kernels(tokens: int, requires_grad: bool) -> set[str]:
    with profile() as seen, torch.autocast("cpu", dtype=torch.bfloat16), FastTraining():
        F.scaled_dot_product_attention(*vectors(tokens, requires_grad))
    return {event.key for event in seen.key_averages()}


def test_kernel_of_attention_depends_on_length_and_training() -> None:
    flash = "aten::_scaled_dot_product_flash_attention_for_cpu"
    assert flash not in kernels(MATMUL_TOKENS, True)
    assert flash in kernels(LONG, True)
    assert flash in kernels(5, False)  # nothing to train


def test_autocast_is_restored_afterwards() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16), FastTraining():
        F.scaled_dot_product_attention(*vectors(LONG))
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16


def test_shared_input_is_cast_once() -> None:
    layers = [torch.nn.Linear(8, 8) for _ in range(3)]
    values = torch.randn(4, 8, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = [layer(values) for layer in layers]
        with profile(record_shapes=True) as seen, FastTraining():
            found = [layer(values) for layer in layers]
            other = layers[0](values * 2)  # another tensor gets its own cast
    casts = [event for event in seen.events() or [] if event.name == "aten::_to_copy" and [4, 8] in event.input_shapes]
    assert len(casts) == 2  # one for the shared tensor, one for the other
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)
    assert not torch.equal(other, found[0])


def test_float32_training_is_unchanged() -> None:
    layer, values = torch.nn.Linear(8, 8), torch.randn(4, 8, requires_grad=True)
    with FastTraining():
        assert layer(values).dtype == torch.float32


@pytest.mark.slow
def test_student_agrees_with_plain_autocast(teacher: Teacher) -> None:
    """The error against float32 is at most 1.5 times that of plain autocast, for states and gradients."""
    torch.manual_seed(0)
    student = new_student(Arch(3, 12, 288, 512), load_encoder(teacher.path).config).eval()
    ids = torch.randint(1000, 2000, (6, 12), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[:3, 7:] = 0

    def gradients(run: Any) -> tuple[Tensor, Tensor]:
        student.zero_grad()
        states = run()[-1]
        (states.float().square() * mask[..., None]).mean().backward()
        return states.detach().float()[mask.bool()], student.encoder.layer[0].attention.self.query.weight.grad.clone()

    def plain() -> Any:
        return student(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states

    exact = gradients(plain)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected, found = gradients(plain), gradients(lambda: student_states(student, ids, mask))
    for ours, theirs, truth in zip(found, expected, exact, strict=True):
        assert (ours - truth).norm() <= 1.5 * (theirs - truth).norm()


def looked_up(padding_idx: int | None, fast: bool, **options: Any) -> torch.nn.Embedding:
    """A table after two backward passes, without clearing the gradients in between."""
    torch.manual_seed(0)
    table = torch.nn.Embedding(7, 3, padding_idx=padding_idx, **options)
    weights = torch.randn(2, 4, 3)
    for ids in (torch.tensor([[1, 0, 1, 5], [0, 0, 2, 6]]), torch.tensor([[5, 5, 5, 5], [3, 1, 0, 2]])):
        if fast:
            with FastTraining():
                rows = table(ids)
        else:
            rows = table(ids)
        (rows * weights).sum().backward()
    return table


@pytest.mark.parametrize("options", [{}, {"scale_grad_by_freq": True}, {"max_norm": 0.1}, {"sparse": True}])
@pytest.mark.parametrize("padding_idx", [None, 0])
def test_gradients_of_a_table_equal_those_of_torch(padding_idx: int | None, options: dict[str, Any]) -> None:
    found, expected = (looked_up(padding_idx, fast, **options).weight.grad for fast in (True, False))
    assert found is not None
    assert expected is not None
    assert found.is_sparse == expected.is_sparse
    torch.testing.assert_close(found.to_dense(), expected.to_dense())


def test_gradient_of_a_table_is_updated_in_place() -> None:
    table = torch.nn.Embedding(7, 3)
    optimizer = torch.optim.SGD(table.parameters(), lr=1.0)
    addresses = set()
    for _ in range(2):
        with FastTraining():
            table(torch.tensor([1, 2])).sum().backward()
        assert table.weight.grad is not None
        assert table.weight.grad.sum() == 6.0  # without the gradient of the previous step
        addresses.add(table.weight.grad.data_ptr())
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
    assert len(addresses) == 1


@pytest.mark.parametrize("padding_idx", [None, 0])
def test_no_dense_gradient_of_a_table_is_allocated(padding_idx: int | None) -> None:
    table = torch.nn.Embedding(7, 3, padding_idx=padding_idx)
    with profile() as seen:
        for lookup in (lambda ids: table(ids), lambda ids: F.embedding(ids, table.weight)):
            with FastTraining():
                rows = lookup(torch.tensor([1, 2]))
            rows.sum().backward()
    assert "aten::embedding_dense_backward" not in {event.key for event in seen.key_averages()}


@pytest.mark.parametrize("trained", [False, True])
def test_only_trained_leaf_tables_use_the_fast_lookup(trained: bool) -> None:
    leaf = torch.randn(7, 3, requires_grad=trained)
    with FastTraining():
        rows = F.embedding(torch.tensor([1, 1]), leaf * 2)
    if trained:
        rows.sum().backward()
        assert leaf.grad is not None
        assert leaf.grad[1].tolist() == [4.0] * 3
    else:
        assert not rows.requires_grad


def test_mallopt_keeps_freed_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    set_to: dict[int, int] = {}
    library = SimpleNamespace(mallopt=set_to.__setitem__)
    monkeypatch.setattr(fast_training.ctypes, "CDLL", lambda _: library)
    keep_freed_memory.__wrapped__()  # the function itself works once a process
    mmap_max, trim_threshold = -4, -1  # M_MMAP_MAX and M_TRIM_THRESHOLD of glibc's malloc.h
    assert set_to == {mmap_max: 0, trim_threshold: 2**31 - 1}


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
def test_free_pages_are_returned_at_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    keep_freed_memory()
    freed = FreedMemory()
    kept = [torch.ones(250_000) for _ in range(400)]  # 400 MB
    kept = kept[::20]  # free all except every twentieth, which fragments the heap
    before = psutil.Process().memory_info().rss
    freed.give_back_when_due()
    assert psutil.Process().memory_info().rss > before - 50e6  # too early to return pages
    monkeypatch.setattr(fast_training, "TRIM_SECONDS", 0.0)
    freed.give_back_when_due()
    assert psutil.Process().memory_info().rss < before - 250e6
    assert all(bool((one == 1).all()) for one in kept)
