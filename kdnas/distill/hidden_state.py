"""Distillation of hidden states (arXiv 2303.09639, Eq. 1): each student layer predicts the states of teacher layers."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kdnas.distill.fast_training import FastTraining
from kdnas.distill.objective import Objective
from kdnas.models.family import family_of, token_types


class HiddenStateLoss(nn.Module):
    """Eq. 1: MSE of W h_S + b against h_T, with one linear map per pair, over real tokens only.

    The raw MSE depends on the scale of the teacher's layers. Divided by their variance it is the unexplained fraction, and
    1 - loss is the explained variance.

    Args:
        pairs: (student layer, teacher layer), 1-based.
        student_hidden: hidden size D_S of the student.
        teacher_hidden: hidden size D_T of the teacher.
        divisors: (n_pairs,) from `loss_divisors`; the loss of each pair is divided by its own. None gives the raw MSE.
    """

    divisors: Tensor

    def __init__(
        self,
        pairs: Sequence[tuple[int, int]],
        student_hidden: int,
        teacher_hidden: int,
        divisors: Tensor | None,
    ) -> None:
        super().__init__()
        self.pairs = list(pairs)
        self.projections = nn.ModuleList(nn.Linear(student_hidden, teacher_hidden) for _ in self.pairs)
        scale = torch.ones(len(self.pairs)) if divisors is None else divisors.detach().float()
        self.register_buffer("divisors", scale.clone())

    def forward(self, student_states: Sequence[Tensor], teacher_states: Mapping[int, Tensor], mask: Tensor) -> Tensor:
        """Loss of each pair, (n_pairs,); the objective is their mean.

        Args:
            student_states: L_S + 1 tensors (B, T, D_S), embedding output first, as transformers returns them.
            teacher_states: teacher layer, 1-based, to (B, T, D_T); tensors from inference mode are allowed.
            mask: (B, T), 1 at real tokens.
        """
        weights = mask.float() / mask.sum()
        losses = []
        for (student_layer, teacher_layer), projection in zip(self.pairs, self.projections, strict=True):
            # Autograd saves the difference, not the teacher's tensor, which may be from inference mode.
            error = projection(student_states[student_layer]).float() - teacher_states[teacher_layer].float()
            losses.append((error.square().mean(-1) * weights).sum())
        return torch.stack(losses) / self.divisors

    def metrics(self, losses: Tensor, variance: Tensor | None = None) -> dict[str, Any]:
        """Mean loss, and explained variance overall and by student layer (the mean over its pairs).

        Args:
            losses: (n_pairs,) on the CPU.
            variance: (n_pairs,) variance of the teacher's layers, needed unless the loss's `divisors` are the variance.
        """
        scale = self.divisors.cpu()
        explained = 1 - losses * (scale / (scale if variance is None else variance))
        layers: dict[int, list[float]] = {}
        for (layer, _), value in zip(self.pairs, explained.tolist(), strict=True):
            layers.setdefault(layer, []).append(value)
        return {
            "validation_loss": float(losses.mean()),
            "explained_variance": float(explained.mean()),
            "layers": {str(layer): sum(values) / len(values) for layer, values in layers.items()},
        }


def loss_divisors(scale: str, variance: Tensor) -> Tensor:
    """Divisors (n_pairs,) of the pairs' raw errors, so that the mean over the pairs is the loss of a scale.

    Args:
        scale: as `DistillOptions.loss_scale`. `sum` divides by 1 / n_pairs: the mean over the pairs is then their sum.
        variance: (n_pairs,) variance of each pair's teacher layer.
    """
    if scale == "normalised":
        return variance
    return torch.full_like(variance, 1 / len(variance) if scale == "sum" else 1.0)


class TeacherStates:
    """Hidden states of some layers of a frozen teacher. Layers above the highest one are not computed.

    Args:
        teacher: encoder without pooler.
        layers: wanted layers, 1-based; 0 is the embedding output.
    """

    def __init__(self, teacher: PreTrainedModel, layers: Iterable[int]) -> None:
        self.layers = sorted(set(layers))
        self._encoder = family_of(teacher.config).first_layers(teacher, self.layers[-1])

    @property
    def device(self) -> torch.device:
        """Device of the teacher."""
        return self._encoder.device

    def __call__(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> dict[int, Tensor]:
        """Layer to (B, T, D_T), from ids, mask and token types (B, T)."""
        with torch.inference_mode():
            states = self._encoder(
                input_ids=input_ids,
                attention_mask=attention_mask,
                output_hidden_states=True,
                **token_types(self._encoder.config, token_type_ids),
            ).hidden_states
        return {layer: states[layer] for layer in self.layers}


class HiddenStateObjective(Objective):
    """Student, frozen teacher and Eq. 1 as one module. Its parameters are those of the student and the projections.

    Args:
        student: encoder without pooler.
        teacher: computes the targets; not a submodule, so it is neither trained nor saved. None if every call passes targets.
        loss: the pairs and their projections.
        variance: (n_pairs,) variance of the teacher's layers, for the explained variance; by default the loss's `divisors`.
    """

    name = "hidden-state"

    def __init__(
        self,
        student: PreTrainedModel,
        teacher: TeacherStates | None,
        loss: HiddenStateLoss,
        variance: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.student, self.loss = student, loss
        self.teacher = teacher
        self._variance = variance

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
        targets: Mapping[int, Tensor] | None = None,
    ) -> Tensor:
        """Loss of each pair, (n_pairs,); `targets` are teacher states, layer to (B, T, D_T)."""
        if targets is None:
            assert self.teacher is not None
            targets = self.teacher(input_ids, attention_mask, token_type_ids)
        states = student_states(self.student, input_ids, attention_mask, token_type_ids)
        losses: Tensor = self.loss(states, targets, attention_mask)
        return losses

    def metrics(self, losses: Tensor) -> dict[str, Any]:
        """Mean loss, and explained variance overall and by student layer."""
        return self.loss.metrics(losses, self._variance)


def student_states(
    student: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
) -> tuple[Tensor, ...]:
    """L_S + 1 tensors (B, T, D_S), embedding output first, from ids, mask and token types (B, T)."""
    with FastTraining():
        output = student(
            input_ids=input_ids,
            attention_mask=attention_mask,
            output_hidden_states=True,
            **token_types(student.config, token_type_ids),
        )
    states: tuple[Tensor, ...] = output.hidden_states
    return states


def paired_states(
    student: PreTrainedModel, teacher: TeacherStates, batches: Iterable[tuple[Tensor, Tensor]]
) -> Iterator[tuple[Sequence[Tensor], dict[int, Tensor], Tensor]]:
    """Student states, teacher states and mask of each batch of ids and mask (B, T), without gradients."""
    for input_ids, mask in batches:
        with torch.no_grad():
            yield student_states(student, input_ids, mask), teacher(input_ids, mask), mask


def teacher_layer_variance(teacher: TeacherStates, batches: Iterable[tuple[Tensor, Tensor]]) -> dict[int, float]:
    """Variance of each teacher layer over the real tokens of some batches.

    It is the mean over dimensions of each dimension's variance, which is the MSE of the best constant prediction.

    Args:
        teacher: the layers to measure.
        batches: ids and mask, each (B, T).
    """
    count = 0.0
    sums: dict[int, Tensor] = {}
    squares: dict[int, Tensor] = {}
    for input_ids, mask in batches:
        real = mask.bool()
        count += float(real.sum())
        for layer, states in teacher(input_ids, mask).items():
            rows = states[real].double()
            sums[layer] = sums.get(layer, 0.0) + rows.sum(0)
            squares[layer] = squares.get(layer, 0.0) + rows.square().sum(0)
    return {layer: float((squares[layer] / count - (sums[layer] / count).square()).mean()) for layer in teacher.layers}
