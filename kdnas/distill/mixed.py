"""Hidden states and MiniLM-v2 relations in one objective.

As published (arXiv 2012.15828), relations give no gradient to the part of the student's last layer after the values. The layers
below change, so the last layer's output, which users pool into embeddings, drifts. Eq. 1 on the last layer prevents this.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kdnas.distill.fast_training import FastTraining
from kdnas.distill.hidden_state import HiddenStateLoss, TeacherStates, student_states
from kdnas.distill.objective import Objective
from kdnas.distill.relation import Relations, queries_keys_values
from kdnas.models.family import shape_of


class MixedObjective(Objective):
    """Student, frozen teacher, Eq. 1 and MiniLM-v2's loss as one module. Its parameters are those of the student and of Eq. 1.

    Args:
        student: encoder without pooler.
        teacher: encoder without pooler; not a submodule, so it is neither trained nor saved.
        loss: Eq. 1 for some pairs of layers.
        relations: relations that the student's last layer imitates.
        weights: weights of the mean loss of the pairs and of the mean loss of the relations, both above 0.
        main: part whose mean is the validation loss: `pairs` in distillation, `relations` in refinement.
        variance: as in `HiddenStateObjective`.
    """

    name = "hidden-state+minilm-v2"

    def __init__(
        self,
        student: PreTrainedModel,
        teacher: PreTrainedModel,
        loss: HiddenStateLoss,
        relations: Relations,
        weights: tuple[float, float],
        main: Literal["pairs", "relations"],
        variance: Tensor | None = None,
    ) -> None:
        super().__init__()
        self._main, self._variance = main, variance
        self.student, self.loss, self.relations = student, loss, relations
        self.teacher = TeacherStates(teacher, [relations.teacher_layer - 1, *(layer for _, layer in loss.pairs)])
        self._teacher_encoder = (teacher,)  # in a tuple: not a submodule
        counts = (len(loss.pairs), len(relations.names))
        self._scales = [sum(counts) * weight / count for weight, count in zip(weights, counts, strict=True)]

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
        targets: Mapping[int, Tensor] | None = None,
    ) -> Tensor:
        """Loss of each pair and relation, (n_pairs + n_relations,), scaled so that the mean of all is the weighted sum.

        `targets` are teacher states, layer to (B, T, D_T), for the layers of the pairs and the layer below the imitated one.
        """
        hidden, relations = self.parts(input_ids, attention_mask, token_type_ids, targets)
        return torch.cat([self._scales[0] * hidden, self._scales[1] * relations])

    def metrics(self, losses: Tensor) -> dict[str, Any]:
        """Metrics of the main part, plus the loss of each relation or the variance that the pairs explain."""
        hidden, relations = self.unscaled(losses)
        others = self.relations.metrics(relations)
        if self._main == "pairs":
            return {**self.loss.metrics(hidden, self._variance), "relations": others["relations"]}
        return {**others, "layers": {str(shape_of(self.student.config).layers): 1 - float(hidden.mean())}}

    def unscaled(self, losses: Tensor) -> tuple[Tensor, Tensor]:
        """The output of `parts`, (n_pairs,) and (n_relations,), from the output of `forward`."""
        pairs = len(self.loss.pairs)
        return losses[:pairs] / self._scales[0], losses[pairs:] / self._scales[1]

    def parts(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
        targets: Mapping[int, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Loss of each pair, (n_pairs,), and of each relation, (n_relations,); arguments as in `forward`."""
        if targets is None:
            targets = self.teacher(input_ids, attention_mask, token_type_ids)
        states = student_states(self.student, input_ids, attention_mask, token_type_ids)
        layer = self.relations.teacher_layer
        with torch.no_grad():
            theirs = queries_keys_values(self._teacher_encoder[0], layer, targets[layer - 1])
        with FastTraining():
            ours = queries_keys_values(self.student, len(states) - 1, states[-2])
        relations = self.relations.losses(theirs, ours, attention_mask)
        return self.loss(states, targets, attention_mask), relations
