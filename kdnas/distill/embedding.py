"""Distillation of text embeddings: the student's pooled vector, through a linear head, against the teacher's unit vector.

The head maps to the teacher's space, so a student can answer queries against an index that its teacher made. It is part of the
student (`kdnas.models.head`). At shorter widths the first dimensions of both vectors are compared (Matryoshka representation
learning, arXiv 2205.13147, Eq. 1). The similarity matrix of a batch is that of similarity-preserving distillation
(arXiv 1907.09682), with cosines.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import PreTrainedModel

from kdnas.distill.contrast import contrast
from kdnas.distill.hidden_state import HiddenStateLoss, TeacherStates, paired_states, student_states
from kdnas.distill.objective import Objective
from kdnas.distill.projection import set_ridge, with_ones
from kdnas.distill.prompting import Prompting
from kdnas.models.family import shape_of
from kdnas.models.head import Head
from kdnas.models.pooling import Pooling


def pooled(states: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """State of the first token or mean over real tokens, float32: states (B, T, D), mask (B, T) -> (B, D)."""
    if pooling == "first":
        return states[:, 0].float()
    weights = mask.unsqueeze(-1).float()
    return (states.float() * weights).sum(1) / weights.sum(1)


class TeacherVectors:
    """A teacher's embeddings as its own files describe them: pooling, a linear head if there is one, unit length.

    Args:
        pooling: the teacher's pooling.
        head: the teacher's own head.
    """

    def __init__(self, pooling: Pooling, head: Head | None) -> None:
        self.pooling, self._head = pooling, head

    def __call__(self, states: Tensor, mask: Tensor) -> Tensor:
        """Unit vectors (B, D) of the last hidden states (B, T, D_T), without gradients."""
        with torch.no_grad():
            vectors = pooled(states, mask, self.pooling)
            if self._head is not None:
                weight, bias = (torch.from_numpy(part).to(vectors) for part in (self._head.weight, self._head.bias))
                vectors = vectors @ weight.T + bias
            return normalize(vectors, dim=-1)


class EmbeddingLoss(nn.Module):
    """Distances of the student's vectors from the teacher's, at one or more widths.

    cosine: 1 - cos of the first w dimensions, mean over the texts. mse: squared distance of the head's output, before its
    normalisation, from the teacher's vector, sum over the first w dimensions and mean over the texts. similarity: mean over
    pairs of different texts of the squared difference of the student's cosines at width w from the teacher's at full width.

    Args:
        student_hidden: hidden size D_S of the student.
        width: size D of the teacher's vectors.
        kind: `cosine` or `mse`.
        prefixes: shorter widths, each above 0 and below D.
    """

    def __init__(self, student_hidden: int, width: int, kind: str, prefixes: Sequence[int] = ()) -> None:
        super().__init__()
        self.head = nn.Linear(student_hidden, width)
        self.kind, self.widths = kind, [width, *sorted(prefixes, reverse=True)]

    def outputs(self, vectors: Tensor) -> Tensor:
        """The head's outputs (B, D) of pooled vectors (B, D_S), in float32 also under autocast."""
        with torch.autocast(vectors.device.type, enabled=False):
            found: Tensor = self.head(vectors.float())
        return found

    def distances(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Distance at each width, (n_widths,), of the head's outputs (B, D) from the teacher's unit vectors (B, D)."""
        return torch.stack([self._distance(outputs[:, :width], targets[:, :width]) for width in self.widths])

    def _distance(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if self.kind == "mse":
            return (outputs - targets).square().sum(-1).mean()
        return (1 - (normalize(outputs, dim=-1) * normalize(targets, dim=-1)).sum(-1)).mean()

    def similarities(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Difference of the similarity matrices at each width, (n_widths,); 0 for a single text."""
        texts = len(outputs)
        wanted = targets @ targets.T
        pairs = max(1, texts * (texts - 1))
        other = 1 - torch.eye(texts, device=outputs.device)
        found = []
        for width in self.widths:
            vectors = normalize(outputs[:, :width], dim=-1)
            found.append(((vectors @ vectors.T - wanted).square() * other).sum() / pairs)
        return torch.stack(found)


class EmbeddingObjective(Objective):
    """Student, frozen teacher and the loss of embeddings, alone or beside Eq. 1, as one module.

    Args:
        student: encoder without pooler.
        teacher: states of the teacher's last layer, and of the layers of `hidden`; not a submodule.
        vectors: how the teacher's states become its embedding.
        loss: distances and the head.
        prompting: puts the teacher's prompts before the texts.
        similarity_weight: weight of the similarity matrices relative to the distances.
        hidden: Eq. 1; None for embeddings alone.
        weight: weight of the embeddings relative to Eq. 1, if there is `hidden`.
        variance: as in `HiddenStateObjective`.
        contrastive_weight: weight of the contrastive term (`kdnas.distill.contrast`); above 0, each training batch
            is two halves, whose rows are pairs.
    """

    def __init__(
        self,
        student: PreTrainedModel,
        teacher: TeacherStates | None,
        vectors: TeacherVectors,
        loss: EmbeddingLoss,
        prompting: Prompting,
        similarity_weight: float = 0.0,
        hidden: HiddenStateLoss | None = None,
        weight: float = 1.0,
        variance: Tensor | None = None,
        contrastive_weight: float = 0.0,
    ) -> None:
        super().__init__()
        self.name = "embedding" if hidden is None else "hidden-state+embedding"
        self.student, self.loss, self.hidden = student, loss, hidden
        self.teacher, self._vectors, self._prompting = teacher, vectors, prompting
        self._variance = variance
        scale = 1.0 if hidden is None else weight
        counts = {"distance": (len(loss.widths), scale)}
        if similarity_weight:
            counts["similarity"] = (len(loss.widths), scale * similarity_weight)
        if hidden is not None:
            counts["hidden"] = (len(hidden.pairs), 1.0)
        if contrastive_weight:
            counts["contrast"] = (1, scale * contrastive_weight)
        total = sum(count for count, _ in counts.values())
        self._sizes = {name: count for name, (count, _) in counts.items()}
        # The mean over all parts is the weighted sum of each kind's mean.
        self._scales = {name: total * weighted / count for name, (count, weighted) in counts.items()}

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
        targets: Mapping[int, Tensor] | None = None,
    ) -> Tensor:
        """Loss of each part, scaled so that their mean is the weighted sum; `targets` are teacher states, layer to (B, T, D_T).

        Prompts are put before the texts only if there are no `targets`.
        """
        if targets is None:
            assert self.teacher is not None
            input_ids, attention_mask, token_type_ids = self._prompting(input_ids, attention_mask, token_type_ids)
            targets = self.teacher(input_ids, attention_mask, token_type_ids)
        states = student_states(self.student, input_ids, attention_mask, token_type_ids)
        wanted = self._vectors(targets[max(targets)], attention_mask)
        outputs = self.loss.outputs(pooled(states[-1], attention_mask, self._vectors.pooling))
        parts = {"distance": self.loss.distances(outputs, wanted)}
        if "similarity" in self._sizes:
            parts["similarity"] = self.loss.similarities(outputs, wanted)
        if self.hidden is not None:
            parts["hidden"] = self.hidden(states, targets, attention_mask)
        if "contrast" in self._sizes:
            parts["contrast"] = contrast(outputs) if self.training else outputs.new_zeros(1)
        return torch.cat([self._scales[name] * part for name, part in parts.items()])

    def unscaled(self, losses: Tensor) -> dict[str, Tensor]:
        """The losses of each kind by name, from the output of `forward`."""
        pieces = losses.split(list(self._sizes.values()))
        return {name: piece / self._scales[name] for name, piece in zip(self._sizes, pieces, strict=True)}

    def metrics(self, losses: Tensor) -> dict[str, Any]:
        """Distance at full width as the validation loss, distances by width, and those of Eq. 1 if it is used."""
        parts = self.unscaled(losses)
        explained: dict[str, Any] = {"explained_variance": None, "layers": {}}
        if self.hidden is not None:
            explained = self.hidden.metrics(parts["hidden"], self._variance)
        widths = [str(width) for width in self.loss.widths]
        found = {"distances": dict(zip(widths, parts["distance"].tolist(), strict=True))}
        if "similarity" in parts:
            found["similarities"] = dict(zip(widths, parts["similarity"].tolist(), strict=True))
        return {**explained, "validation_loss": float(parts["distance"][0]), **found}

    def head(self) -> Head:
        """The trained head, for the student's folder."""
        weight, bias = (part.detach().float().cpu().numpy() for part in (self.loss.head.weight, self.loss.head.bias))
        return Head(weight, bias)

    @torch.no_grad()
    def start_head(self, batches: Iterable[tuple[Tensor, Tensor]], head: Head | None = None) -> None:
        """Start with a given head of the same shape, else with the ridge regression of the teacher's vectors on the pooled ones.

        Args:
            batches: ids and mask, each (B, T).
            head: head of a student that training continues with.
        """
        linear = self.loss.head
        if head is not None and head.weight.shape == tuple(linear.weight.shape):
            linear.weight.copy_(torch.from_numpy(head.weight))
            linear.bias.copy_(torch.from_numpy(head.bias))
            return
        assert self.teacher is not None
        prompted = (self._prompting(input_ids, attention_mask, None)[:2] for input_ids, attention_mask in batches)
        self.fit_head(paired_states(self.student, self.teacher, prompted))

    @torch.no_grad()
    def fit_head(self, batches: Iterable[tuple[Sequence[Tensor], Mapping[int, Tensor], Tensor]]) -> None:
        """Set the head to the ridge regression of the teacher's vectors on the student's pooled ones.

        Args:
            batches: student states (L_S + 1 of (B, T, D_S)), teacher states (layer to (B, T, D_T)) and mask (B, T).
        """
        linear = self.loss.head
        size = linear.in_features + 1
        gram = torch.zeros(size, size, dtype=torch.float64, device=linear.weight.device)
        cross = gram.new_zeros(size, linear.out_features)
        for ours, theirs, mask in batches:
            inputs = with_ones(pooled(ours[-1], mask, self._vectors.pooling))
            wanted = self._vectors(theirs[max(theirs)], mask).double()
            gram, cross = gram + inputs.T @ inputs, cross + inputs.T @ wanted
        set_ridge(linear, gram, cross)


def width_of(teacher: PreTrainedModel, head: Head | None) -> int:
    """Size of a teacher's vectors."""
    return shape_of(teacher.config).hidden if head is None else head.outputs
