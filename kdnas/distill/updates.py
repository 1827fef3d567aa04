"""AdamW updates with gradient clipping, in fewer passes over memory than torch's separate steps.

The fused optimizer gets the norm of all gradients and divides by it while it reads them, so no separate pass scales them. In an
embedding table only the rows that a batch looked up have gradients (`kdnas.distill.fast_training`), so the norm reads only these
rows, and only these are set to zero. In a student of three layers the table has most of the parameters. Of the cut table of a
large vocabulary (`kdnas.distill.cut_table`), the update also reads and writes only these rows.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from kdnas.distill.lazy_rows import lazy_rows_of

ROWS = "rows_with_gradients"  # of a table: one tensor of ids per batch; None if it also has a gradient from elsewhere
LR_FACTOR = "lr_factor"  # key of a parameter group: its learning rate relative to that of the other groups
CLIP_NORM = 1.0


def follow_rows(module: nn.Module) -> None:
    """Start to record which rows of each embedding table have gradients."""
    for part in module.modules():
        if isinstance(part, nn.Embedding) and part.weight.requires_grad and not hasattr(part.weight, ROWS):
            setattr(part.weight, ROWS, [])
            part.weight.register_hook(partial(_note_other_gradients, part.weight))


def note_rows(table: Tensor, ids: Tensor) -> None:
    """Record that these rows of a table have gradients, because autograd does not see the in-place addition."""
    rows = getattr(table, ROWS, None)
    if rows is not None:
        rows.append(ids.flatten())


def update(optimizer: torch.optim.Optimizer, lr: float) -> Tensor:
    """Update the weights by their gradients, clipped to a norm of `CLIP_NORM`, and set the gradients to zero in place.

    Args:
        optimizer: a fused optimizer, whose steps divide gradients by its `grad_scale`.
        lr: learning rate of this step.

    Returns:
        The norm of the gradients before clipping, (); if it is not finite, the weights are unchanged.
    """
    parameters = [one for group in optimizer.param_groups for one in group["params"] if one.grad is not None]
    rows = {index: rows_of(one) for index, one in enumerate(parameters)}
    gradients = [one.grad if rows[index] is None else one.grad[rows[index]] for index, one in enumerate(parameters)]
    norm = get_total_norm(gradients)
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get(LR_FACTOR, 1.0)
    scale = ((norm + 1e-6) / CLIP_NORM).clamp(min=1.0).to(torch.float32)
    if torch.isfinite(norm):
        _step(optimizer, parameters, rows, scale)
    _clear(zip(parameters, rows.values(), strict=True))
    return norm


def _step(
    optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor], rows: Mapping[int, Tensor | None], scale: Tensor
) -> None:
    """Step all parameters; of lazily updated tables only the rows with gradients, which the fused optimizer does not see."""
    lazy = {index: found for index, one in enumerate(parameters) if (found := lazy_rows_of(one)) is not None}
    gradients = {index: parameters[index].grad for index in lazy}
    for index in lazy:
        parameters[index].grad = None
    scaled: Any = optimizer
    scaled.grad_scale = scale
    optimizer.step()
    del scaled.grad_scale
    for index, table in lazy.items():
        gradient, used = gradients[index], rows[index]
        assert gradient is not None
        assert used is not None
        table.update(used, gradient[used], scale)
        parameters[index].grad = gradient


def rows_of(parameter: Tensor) -> Tensor | None:
    """The rows with gradients; None if the parameter is not an embedding table or has a full gradient."""
    rows = getattr(parameter, ROWS, None)
    return torch.unique(torch.cat(rows)) if rows else None


def _clear(gradients: Iterable[tuple[Tensor, Tensor | None]]) -> None:
    for parameter, rows in gradients:
        assert parameter.grad is not None
        if rows is None:
            parameter.grad.zero_()
        else:
            parameter.grad.index_fill_(0, rows, 0.0)
        if hasattr(parameter, ROWS):
            setattr(parameter, ROWS, [])


def _note_other_gradients(table: Tensor, gradient: Tensor | None) -> None:
    """Hook of a table. Autograd also calls it, without a gradient, after the in-place addition."""
    if gradient is not None:
        setattr(table, ROWS, None)
