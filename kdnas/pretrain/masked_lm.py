"""Masked language modelling (arXiv 1810.04805, Section 3.1). The head is computed only at the tokens to predict."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from kdnas.distill.fast_training import FastTraining
from kdnas.distill.objective import Objective
from kdnas.models.family import token_types

MASKED, REPLACED = 0.8, 0.1  # fractions of the tokens chosen for prediction; the other 10 % stay unchanged


class MaskedLanguageModel(Objective):
    """A model with its language-model head; its loss is the cross-entropy of the tokens chosen for prediction.

    In training the tokens are drawn from torch's generator, whose state is in the checkpoints. In evaluation mode they are the
    same in every pass.

    Args:
        model: model from `transformers.AutoModelForMaskedLM`.
        mask_id: id of the mask token.
        special_ids: ids of special tokens, which are never chosen.
        mask_fraction: fraction of the other tokens that are chosen.
    """

    name = "masked-lm"

    def __init__(self, model: PreTrainedModel, mask_id: int, special_ids: Sequence[int], mask_fraction: float) -> None:
        super().__init__()
        self.student = model
        self._mask_id, self._mask_fraction = mask_id, mask_fraction
        self.register_buffer("_special_ids", torch.tensor(special_ids), persistent=False)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None, targets: None = None
    ) -> Tensor:
        """Loss (1,); 0 if no token was chosen. There is no teacher, so `targets` is None."""
        model, prefix = self.student, self.student.base_model_prefix
        corrupted, masked = self.corrupt(input_ids, attention_mask)
        with FastTraining():
            states = getattr(model, prefix)(
                input_ids=corrupted,
                attention_mask=attention_mask,
                **token_types(model.config, token_type_ids),
            ).last_hidden_state
            (head,) = (part for name, part in model.named_children() if name != prefix)
            logits = head(states[masked])
        return F.cross_entropy(logits.float(), input_ids[masked], reduction="sum")[None] / masked.sum().clamp(min=1)

    def metrics(self, losses: Tensor) -> dict[str, Any]:
        """Loss of the masked tokens, and their perplexity."""
        loss = float(losses.mean())
        return {"validation_loss": loss, "explained_variance": None, "layers": {}, "perplexity": math.exp(loss)}

    def corrupt(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Ids (B, T) with some of them masked or replaced, and a mask of the tokens to predict, (B, T) bool."""
        generator = None if self.training else torch.Generator().manual_seed(0)
        draw, fate = torch.rand((2, *input_ids.shape), generator=generator).to(input_ids.device)
        others = torch.randint(self.student.config.vocab_size, input_ids.shape, generator=generator)
        plain = attention_mask.bool() & ~torch.isin(input_ids, self._special_ids)
        masked = plain & (draw < self._mask_fraction)
        corrupted = input_ids.masked_fill(masked & (fate < MASKED), self._mask_id)
        replaced = masked & (fate >= MASKED) & (fate < MASKED + REPLACED)
        return torch.where(replaced, others.to(input_ids.device), corrupted), masked
