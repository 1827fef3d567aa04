"""Validation of a training stage: losses on a fixed set of sentences, averaged over real tokens."""

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


def validate(objective: Objective, batches: list[Batch], accelerator: Accelerator) -> dict[str, Any]:
    """The metrics of an objective on the batches of `sample_batches`."""
    return objective.metrics(mean_losses(objective, batches, accelerator))
