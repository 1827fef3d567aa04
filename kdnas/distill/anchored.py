"""MiniLM-v2's relations with the last layer's hidden states beside them, as an anchor.

As published (arXiv 2012.15828), relations give no gradient to what follows the values in the student's last layer: the
layers below move, and the last layer's output, which users pool into embeddings, drifts. Eq. 1 on the last layer holds it.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kdnas.distill.fast_training import FastTraining
from kdnas.distill.hidden_state import HiddenStateLoss, TeacherStates, student_states
from kdnas.distill.relation import queries_keys_values, relation_losses


class AnchoredRelationObjective(nn.Module):
    """Student, frozen teacher, MiniLM-v2's loss and Eq. 1 as one module; its parameters are the student's and Eq. 1's.

    Args:
        student: encoder without pooler.
        teacher: encoder without pooler; not a submodule, so nothing trains or saves it.
        teacher_layer: layer whose relations are imitated, 1-based.
        relation_heads: from `resolve_relation_heads`.
        anchor: Eq. 1 for pairs of the student's last layer.
        weight: of the hidden states beside each relation; above 0.
    """

    name = "minilm-v2+hidden-state"

    def __init__(
        self,
        student: PreTrainedModel,
        teacher: PreTrainedModel,
        teacher_layer: int,
        relation_heads: int,
        anchor: HiddenStateLoss,
        weight: float,
    ) -> None:
        super().__init__()
        self.student, self.anchor = student, anchor
        self.teacher_layer, self.relation_heads, self.weight = teacher_layer, relation_heads, weight
        self.teacher = TeacherStates(teacher, [teacher_layer - 1, *(layer for _, layer in anchor.pairs)])
        self._teacher_encoder = (teacher,)  # in a tuple: not a submodule

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Loss of QQ, KK, VV and `weight` times that of the hidden states, (4,), from ids and mask (B, T)."""
        targets = self.teacher(input_ids, attention_mask)
        states = student_states(self.student, input_ids, attention_mask)
        with torch.no_grad():
            theirs = queries_keys_values(self._teacher_encoder[0], self.teacher_layer, targets[self.teacher_layer - 1])
        with FastTraining():
            ours = queries_keys_values(self.student, len(states) - 1, states[-2])
        relations = relation_losses(theirs, ours, self.relation_heads, attention_mask)
        hidden = self.anchor(states, targets, attention_mask).mean()
        return torch.cat([relations, self.weight * hidden[None]])

    def states_of(self, batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Sequence[Tensor], Any, Tensor]]:
        """Student states, teacher states and mask of each batch, without gradients."""
        for input_ids, mask in batches:
            with torch.no_grad():
                yield student_states(self.student, input_ids, mask), self.teacher(input_ids, mask), mask
