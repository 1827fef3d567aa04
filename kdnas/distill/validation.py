"""Validation of a training stage: losses on a fixed set of sentences, averaged over real tokens."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from kdnas.distill.batches import Batch, to_tensors
from kdnas.distill.objective import Objective
from kdnas.text.sentences import Sentences, token_batches


def sample_batches(sentences: Sentences, limit: int, batch_tokens: int, pad_id: int, device: Any) -> list[Batch]:
    """A fixed random sample of at most `limit` sentences, in batches of similar lengths."""
    chosen = np.random.default_rng(0).permutation(len(sentences))[:limit]
    batches = token_batches(sentences.lengths[chosen], batch_tokens, seed=0, epoch=0)
    return [to_tensors(sentences, chosen[batch], pad_id, device) for batch in batches]


def mean_losses(objective: nn.Module, batches: list[Batch], accelerator: Accelerator) -> Tensor:
    """Mean loss of each part over all real tokens of the batches, (n_parts,), float64, without dropout."""
    return mean_losses_of_all([objective], batches, accelerator)[0]


def mean_losses_of_all(objectives: Sequence[nn.Module], batches: list[Batch], accelerator: Accelerator) -> list[Tensor]:
    """`mean_losses` of each objective; all see a batch before the next one, so that they can share their teacher's outputs."""
    training = [module for objective in objectives for module in objective.modules() if module.training]
    for objective in objectives:
        objective.eval()
    totals, tokens = [torch.zeros(1, dtype=torch.float64) for _ in objectives], 0
    with torch.no_grad(), accelerator.autocast():
        for input_ids, mask in batches:
            count = int(mask.sum())
            for index, objective in enumerate(objectives):
                totals[index] = totals[index] + objective(input_ids, mask).double().cpu() * count
            tokens += count
    for module in training:
        module.training = True
    return [total / tokens for total in totals]


def validate(objective: Objective, batches: list[Batch], accelerator: Accelerator) -> dict[str, Any]:
    """The metrics of an objective on the batches of `sample_batches`."""
    return objective.metrics(mean_losses(objective, batches, accelerator))
