"""Initial projections for Eq. 1 from ridge regression instead of random weights.

A new student's states already contain the teacher's embeddings. The best linear map from them has a closed form, so training
spends no steps on it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from kdnas.distill.hidden_state import HiddenStateLoss

FIT_TOKENS = 8192
RIDGE = 1e-2  # relative to the mean square of an input


def fit_projections(
    loss: HiddenStateLoss, batches: Iterable[tuple[Sequence[Tensor], Mapping[int, Tensor], Tensor]]
) -> None:
    """Set every projection of `loss` to the ridge regression of its teacher layer on its student layer.

    Args:
        loss: objective whose projections are overwritten.
        batches: student states (L_S + 1 of (B, T, D_S)), teacher states (layer to (B, T, D_T)) and mask (B, T); read
            until `FIT_TOKENS` real tokens are reached.
    """
    gram: dict[int, Tensor] = {}
    cross: list[Tensor | float] = [0.0] * len(loss.pairs)
    seen = 0
    for student_states, teacher_states, mask in batches:
        real = mask.bool()
        inputs = {layer: with_ones(student_states[layer][real]) for layer, _ in loss.pairs}
        for layer, values in inputs.items():
            gram[layer] = gram.get(layer, 0.0) + values.T @ values
        for index, (layer, teacher_layer) in enumerate(loss.pairs):
            cross[index] = cross[index] + inputs[layer].T @ teacher_states[teacher_layer][real].double()
        seen += int(real.sum())
        if seen >= FIT_TOKENS:
            break
    with torch.no_grad():
        for index, (layer, _) in enumerate(loss.pairs):
            total = cross[index]
            assert isinstance(total, Tensor)
            set_ridge(loss.projections[index], gram[layer], total)


def set_ridge(projection: Any, gram: Tensor, cross: Tensor) -> None:
    """Set a linear layer to the ridge regression of Y on X, where X has a last column of ones for the bias.

    Args:
        projection: `nn.Linear` from D_in to D_out.
        gram: X'X, (D_in + 1, D_in + 1) float64.
        cross: X'Y, (D_in + 1, D_out) float64.
    """
    ridge = RIDGE * gram.diagonal()[:-1].mean() * torch.eye(len(gram), device=gram.device)
    ridge[-1, -1] = 0.0  # no penalty on the bias
    solution = torch.linalg.solve(gram + ridge.double(), cross)
    projection.weight.copy_(solution[:-1].T)
    projection.bias.copy_(solution[-1])


def with_ones(states: Tensor) -> Tensor:
    """(N, D) as (N, D + 1) float64 with a column of ones for the bias."""
    values = states.double()
    return torch.cat([values, torch.ones_like(values[:, :1])], dim=1)
