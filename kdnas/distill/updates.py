"""AdamW's updates by clipped gradients, with fewer passes over memory than torch's own steps one after the other.

The norm of all gradients is handed to the fused optimizer, which divides by it as it reads them, instead of scaling them before.
Of a table of embeddings only those rows have gradients that a batch looked up (`kdnas.distill.fast_training`): the norm reads no
others, and no others are set to zero. Of a student of three layers the table is most of the parameters.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

ROWS = "rows_with_gradients"  # of a table: ids of one batch each; None where its gradient came from elsewhere, too
LR_SHARE = "lr_factor"  # of a group of parameters: its learning rate by that of the others
CLIP_NORM = 1.0


def follow_rows(module: nn.Module) -> None:
    """Let each table of embeddings know which of its rows have gradients, from now on."""
    for part in module.modules():
        if isinstance(part, nn.Embedding) and part.weight.requires_grad and not hasattr(part.weight, ROWS):
            setattr(part.weight, ROWS, [])
            part.weight.register_post_accumulate_grad_hook(_has_other_gradients)


def note_rows(table: Tensor, ids: Tensor) -> None:
    """Say that these rows of a table have got gradients, that nothing else told autograd of."""
    rows = getattr(table, ROWS, None)
    if rows is not None:
        rows.append(ids.flatten())


def update(optimizer: torch.optim.Optimizer, lr: float) -> Tensor:
    """Move the weights by the gradients on them, of a norm of at most `CLIP_NORM`, and set those to zero in place.

    Args:
        optimizer: a fused one, whose steps divide gradients by its `grad_scale`.
        lr: learning rate of this step.

    Returns:
        The norm of the gradients before, (); where it is not finite, the weights were left as they are.
    """
    parameters = [one for group in optimizer.param_groups for one in group["params"] if one.grad is not None]
    rows = {index: rows_of(one) for index, one in enumerate(parameters)}
    gradients = [one.grad if rows[index] is None else one.grad[rows[index]] for index, one in enumerate(parameters)]
    norm = get_total_norm(gradients)
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get(LR_SHARE, 1.0)
    scaled: Any = optimizer
    scaled.grad_scale = ((norm + 1e-6) / CLIP_NORM).clamp(min=1.0).to(torch.float32)
    if torch.isfinite(norm):
        optimizer.step()
    del scaled.grad_scale
    _clear(zip(parameters, rows.values(), strict=True))
    return norm


def rows_of(parameter: Tensor) -> Tensor | None:
    """The rows that have gradients; None of what is no table, or has been given gradients as a whole."""
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
