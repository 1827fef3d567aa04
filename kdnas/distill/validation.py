"""Validation of a training stage: the same sentences every time, losses averaged over their real tokens."""

from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from kdnas.distill.batches import Batch, to_tensors
from kdnas.distill.hidden_state import HiddenStateObjective
from kdnas.distill.mixed import MixedObjective
from kdnas.distill.relation import RelationObjective
from kdnas.models.family import shape_of
from kdnas.text.sentences import Sentences, token_batches


def sample_batches(sentences: Sentences, limit: int, batch_tokens: int, pad_id: int, device: Any) -> list[Batch]:
    """A fixed random sample of at most `limit` sentences, in batches of similar lengths."""
    chosen = np.random.default_rng(0).permutation(len(sentences))[:limit]
    batches = token_batches(sentences.lengths[chosen], batch_tokens, seed=0, epoch=0)
    return [to_tensors(sentences, chosen[batch], pad_id, device) for batch in batches]


def mean_losses(objective: nn.Module, batches: list[Batch], accelerator: Accelerator) -> Tensor:
    """Loss of each part over all real tokens of the batches, (n_parts,), float64; dropout off."""
    training = [module for module in objective.modules() if module.training]
    objective.eval()
    total, tokens = torch.zeros(1, dtype=torch.float64), 0
    with torch.no_grad(), accelerator.autocast():
        for input_ids, mask in batches:
            count = int(mask.sum())
            total = total + objective(input_ids, mask).double().cpu() * count
            tokens += count
    for module in training:
        module.training = True
    return total / tokens


def hidden_state_metrics(
    objective: HiddenStateObjective | MixedObjective, batches: list[Batch], accelerator: Accelerator, variance: Tensor
) -> dict[str, Any]:
    """Loss, and explained variance as a whole and by student layer (the mean of its pairs); relations where there are any.

    Args:
        objective: what is trained.
        batches: from `sample_batches`.
        accelerator: its autocast is used.
        variance: (n_pairs,) of the teacher's layers, needed where the objective is the raw MSE.
    """
    losses = mean_losses(objective, batches, accelerator)
    others = {}
    if isinstance(objective, MixedObjective):
        losses, relations = objective.unscaled(losses)
        others = _by_relation(objective, relations)
    explained = 1 - losses * (objective.loss.variance.cpu() / variance)
    layers: dict[int, list[float]] = {}
    for (layer, _), value in zip(objective.loss.pairs, explained.tolist(), strict=True):
        layers.setdefault(layer, []).append(value)
    return {
        "validation_loss": float(losses.mean()),
        "explained_variance": float(explained.mean()),
        "layers": {str(layer): sum(values) / len(values) for layer, values in layers.items()},
        **others,
    }


def relation_metrics(
    objective: RelationObjective | MixedObjective, batches: list[Batch], accelerator: Accelerator
) -> dict[str, Any]:
    """Loss of the relations as a whole and one by one; explained variance of the last layer where it is the anchor."""
    losses, layers = mean_losses(objective, batches, accelerator), {}
    if isinstance(objective, MixedObjective):
        hidden, losses = objective.unscaled(losses)
        layers[str(shape_of(objective.student.config).layers)] = 1 - float(hidden.mean())
    return {
        "validation_loss": float(losses.mean()),
        "explained_variance": None,
        "layers": layers,
        **_by_relation(objective, losses),
    }


def _by_relation(objective: RelationObjective | MixedObjective, losses: Tensor) -> dict[str, Any]:
    return {"relations": dict(zip(objective.relations.names, losses.tolist(), strict=True))}
