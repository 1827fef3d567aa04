"""Faster replacements for slow parts of torch training on a CPU: embeddings, dropout, bf16 attention, casts, freed memory."""

import ctypes
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from kdnas.distill.lazy_rows import lazy_rows_of
from kdnas.distill.updates import note_rows

MATMUL_TOKENS = 128
TRIM_SECONDS = 60.0
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


class FastTraining(TorchFunctionMode):
    """Context manager that replaces four operations of a model in training on a CPU.

    Embeddings: the gradient of a table is added in place to the parameter's gradient. torch allocates a new table of zeros each
    time, which for 30,000 rows of 576 takes 1 to 10 % of a step (results/log.md). The optimizer's `zero_grad` must keep
    gradients (`set_to_none=False`). Rows that the optimizer updates lazily (`kdnas.distill.lazy_rows`) are looked up with their
    current values.

    Attention, inside bf16 autocast: torch 2.13's bf16 backward kernel of scaled dot-product attention takes several times
    as long as the float32 one on short sentences. Up to 128 tokens, plain bf16 matrix products with a float32 softmax are
    faster than both (`tests/bench/attention.py`). For longer sentences the float32 kernel is used.

    Casts, inside bf16 autocast: queries, keys and values are maps of the same float32 tensor. Autocast casts it to bf16 three
    times, and casts and adds three parts of its gradient. Here it is cast once.

    Dropout: torch draws random numbers sequentially, which takes a sixth of a fine-tuning step. numpy draws numbers of equal
    quality several times as fast. Its seed comes from torch's generator, so runs stay reproducible.

    Passes without gradients (the teacher's) and other devices are unchanged, except for lazily updated rows.
    """

    def __init__(self) -> None:
        super().__init__()
        self._cast: tuple[Tensor | None, Tensor | None] = (None, None)
        self._draws: np.random.Generator | None = None

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.embedding and _is_trained_table(*args, **kwargs):
            return _Lookup.apply(*args[:2], kwargs.get("padding_idx"))
        if func is F.linear and _autocast_casts(args[0]):
            return func(self._in_bf16(args[0]), *args[1:], **kwargs)
        if func is F.scaled_dot_product_attention and _slow_backward(args[0]):
            if max(args[0].shape[-2], args[1].shape[-2]) <= MATMUL_TOKENS:
                return _by_products(self._dropout, *args, **kwargs)
            return _in_float32(*args, **kwargs)
        if func is F.dropout and _is_trained_on_cpu(args[0]) and not kwargs.get("inplace", len(args) > 3 and args[3]):
            fraction = kwargs.get("p", args[1] if len(args) > 1 else 0.5)
            training = kwargs.get("training", args[2] if len(args) > 2 else True)
            return self._dropout(args[0], fraction if training else 0.0)
        return func(*args, **kwargs)

    def _in_bf16(self, values: Tensor) -> Tensor:
        if self._cast[0] is not values:
            self._cast = (values, values.to(torch.bfloat16))
        cast = self._cast[1]
        assert cast is not None
        return cast

    def _dropout(self, values: Tensor, fraction: float) -> Tensor:
        """Set this fraction of the values (to 1/65536) to 0 and scale the others, so that the expectation stays the same."""
        limit = round(fraction * 65536)
        if limit in (0, 65536):
            return values if not limit else values * 0
        if self._draws is None:
            self._draws = np.random.default_rng(int(torch.randint(2**62, ())))
        draws = torch.from_numpy(self._draws.integers(-32768, 32768, values.shape, dtype=np.int16))
        kept = (draws >= limit - 32768).to(values.dtype)
        return values * kept.mul_(65536 / (65536 - limit))


class _Lookup(torch.autograd.Function):
    """Embedding lookup that adds the gradients of its rows to the table's gradient in place."""

    @staticmethod
    def forward(ctx: Any, ids: Tensor, table: Tensor, padding_idx: int | None) -> Tensor:
        """Rows (..., D) of a leaf (V, D) by ids (...); the row of `padding_idx` is never trained."""
        ctx.save_for_backward(ids)
        ctx.table, ctx.padding_idx = table, padding_idx
        lazy = lazy_rows_of(table)
        return F.embedding(ids, table) if lazy is None else lazy.values(ids)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (ids,), table = ctx.saved_tensors, ctx.table
        if table.grad is None:
            table.grad = torch.zeros_like(table)
        table.grad.index_add_(0, ids.flatten(), gradients[0].reshape(-1, table.shape[1]))
        note_rows(table, ids)
        if ctx.padding_idx is not None:
            table.grad[ctx.padding_idx] = 0.0
        return None, None, None


def _is_trained_table(
    ids: Tensor,
    table: Tensor,
    max_norm: float | None = None,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
    **others: Any,
) -> bool:
    plain = max_norm is None and not scale_grad_by_freq and not sparse
    lazy = lazy_rows_of(table) is not None
    return plain and table.requires_grad and table.is_leaf and (lazy or table.device.type == "cpu")


@cache
def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, if the C library is glibc.

    A training step frees and allocates the same few gigabytes. If they were returned to the system in between, the page faults
    would cost about a tenth of a step in bf16 (results/log.md).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


class FreedMemory:
    """Returns free pages to the system every minute, if the C library is glibc.

    Batches of different shapes fragment the heap, which otherwise grows by a fifth in an hour. Each return costs about half a
    second of page faults.
    """

    def __init__(self) -> None:
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        self._last = time.monotonic()

    def give_back_when_due(self) -> None:
        """Return free pages if a minute has passed; call it between two updates."""
        if self._trim is not None and time.monotonic() - self._last >= TRIM_SECONDS:
            self._trim(0)
            self._last = time.monotonic()


def _autocast_casts(values: Tensor) -> bool:
    return (
        values.requires_grad
        and values.dtype == torch.float32
        and values.device.type == "cpu"
        and torch.is_autocast_enabled("cpu")
    )


def _slow_backward(query: Tensor) -> bool:
    return query.requires_grad and query.dtype == torch.bfloat16 and query.device.type == "cpu"


def _is_trained_on_cpu(values: Tensor) -> bool:
    return values.requires_grad and values.device.type == "cpu" and values.is_floating_point()


def _by_products(
    dropout: Callable[[Tensor, float], Tensor],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    **options: Any,
) -> Tensor:
    """softmax(Q K') V for queries (B, H, T, d), keys and values (B, H, S, d), and a mask broadcast to (B, H, T, S)."""
    scale = options.get("scale") or query.shape[-1] ** -0.5
    scores = (query * scale) @ key.transpose(-1, -2)
    if options.get("is_causal"):
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, torch.finfo(scores.dtype).min)
    elif attn_mask is not None:
        scores = scores + attn_mask.to(scores.dtype)
    probabilities = F.softmax(scores, dim=-1, dtype=torch.float32)
    return dropout(probabilities, options.get("dropout_p", 0.0)).to(value.dtype) @ value


def _in_float32(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **options: Any) -> Tensor:
    if attn_mask is not None and attn_mask.is_floating_point():
        attn_mask = attn_mask.float()
    with torch.autocast("cpu", enabled=False):
        return F.scaled_dot_product_attention(query.float(), key.float(), value.float(), attn_mask, **options)
