"""What a candidate of the proxy learns: the objective of the later distillation, with the teacher's states from a cache."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kdnas.distill.embedding import EmbeddingObjective
from kdnas.distill.embedding_stage import embedding_objective
from kdnas.distill.hidden_state import HiddenStateLoss, HiddenStateObjective, loss_divisors
from kdnas.distill.mapping import Mapping as Layers
from kdnas.distill.mapping import layer_pairs
from kdnas.distill.options import DistillOptions, ObjectiveName
from kdnas.distill.projection import fit_projections
from kdnas.distill.prompting import Prompting, read_prompting
from kdnas.models.arch import Arch
from kdnas.models.family import shape_of
from kdnas.models.head import read_prompts
from kdnas.models.teacher import Teacher

CandidateObjective = HiddenStateObjective | EmbeddingObjective
# Student states, teacher states and mask of each batch.
States = Iterator[tuple[Sequence[Tensor], Mapping[int, Tensor], Tensor]]


def wanted_layers(
    depths: Iterable[int], teacher_layers: int, mapping: Layers = Layers.UNIFORM_LAST, objective: str = "hidden-state"
) -> list[int]:
    """Teacher layers, 1-based, that some student learns from; embeddings need the last one.

    Args:
        depths: numbers of layers of the students.
        teacher_layers: number of layers of the teacher.
        mapping: as in `DistillOptions`.
        objective: as in `DistillOptions`.
    """
    found = {teacher_layers} if objective != "hidden-state" else set()
    if objective != "embedding":
        found |= {layer for depth in depths for _, layer in layer_pairs(depth, teacher_layers, mapping)}
    return sorted(found)


@dataclass(frozen=True)
class Candidates:
    """Makes the objectives of candidates.

    Args:
        objective: as in `DistillOptions`.
        teacher: identity of the teacher.
        encoder: the same teacher, loaded.
        distill: options of the later distillation.
    """

    objective: ObjectiveName
    teacher: Teacher
    encoder: PreTrainedModel
    distill: DistillOptions

    @property
    def mapping(self) -> Layers:
        return Layers(self.distill.mapping)

    @property
    def options(self) -> DistillOptions:
        """The options of the later distillation, with the objective of the candidates.

        Candidates see single texts, so they learn no contrastive term, and embeddings have no relations beside them.
        """
        if self.objective == "hidden-state":
            return self.distill
        return replace(self.distill, objective=self.objective, relation_weight=0.0, contrastive_weight=0.0)

    def prompting(self) -> Prompting:
        """The prompts before the texts: those of the teacher if embeddings are learned, else none."""
        if self.objective == "hidden-state":
            return Prompting()
        positions = shape_of(self.encoder.config).positions
        return read_prompting(self.teacher.path, read_prompts(self.teacher.path), positions)

    def layers(self, depths: Iterable[int]) -> list[int]:
        """Teacher layers that students of these depths learn from."""
        return wanted_layers(depths, self.teacher.layers, self.mapping, self.objective)

    def make(self, arch: Arch, student: PreTrainedModel, variances: Mapping[int, float]) -> CandidateObjective:
        """The objective of a student; it takes the teacher's states with each batch.

        Args:
            arch: the student's architecture.
            student: encoder without pooler.
            variances: variance of each teacher layer.
        """
        loss, variance = None, None
        if self.objective != "embedding":
            pairs = layer_pairs(arch.layers, self.teacher.layers, self.mapping)
            variance = torch.tensor([variances[layer] for _, layer in pairs])
            divisors = loss_divisors(self.distill.loss_scale, variance)
            loss = HiddenStateLoss(pairs, arch.hidden, shape_of(self.encoder.config).hidden, divisors)
        if self.objective != "hidden-state":
            return embedding_objective(self.teacher, self.encoder, student, self.options, loss, variance)
        assert loss is not None
        return HiddenStateObjective(student, None, loss)

    def start(self, objective: CandidateObjective, first: States, again: States) -> None:
        """Set projections and head by ridge regression, as the later distillation does.

        Args:
            objective: from `make`.
            first: states of the sentences, for the projections.
            again: the same, for the head.
        """
        loss = objective.hidden if isinstance(objective, EmbeddingObjective) else objective.loss
        if loss is not None and self.distill.projections == "fitted":
            fit_projections(loss, first)
        if isinstance(objective, EmbeddingObjective):
            objective.fit_head(again)
