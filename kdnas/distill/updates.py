"""AdamW updates with gradient clipping, in fewer passes over memory than torch's separate steps.

The fused optimizer gets the norm of all gradients and divides by it while it reads them, so no separate pass scales them. In an
embedding table only the rows that a batch looked up have gradients (`kdnas.distill.fast_training`), so the norm reads only these
rows, and only these are set to zero. In a student of three layers the table has most of the parameters.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

ROWS = "rows_with_gradients"  # of a table: one tensor of ids per batch; None if it also has a gradient from elsewhere
LR_FACTOR = "lr_factor"  # key of a parameter group: its learning rate relative to that of the other groups
CLIP_NORM = 1.0


def follow_rows(module: nn.Module) -> None:
    """Start to record which rows of each embedding table have gradients."""
    for part in module.modules():
        if isinstance(part, nn.Embedding) and part.weight.requires_grad and not hasattr(part.weight, ROWS):
            setattr(part.weight, ROWS, [])
            part.weight.register_post_accumulate_grad_hook(_has_other_gradients)


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
    scaled: Any = optimizer
    scaled.grad_scale = ((norm + 1e-6) / CLIP_NORM).clamp(min=1.0).to(torch.float32)
    if torch.isfinite(norm):
        optimizer.step()
    del scaled.grad_scale
    _clear(zip(parameters, rows.values(), strict=True))
    return norm


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


def _has_other_gradients(table: Tensor) -> None:
    setattr(table, ROWS, None)
