"""MiniLM-v2 (arXiv 2012.15828; arXiv 2303.09639, Eq. 5 and 6): the student's last layer imitates relations of a teacher layer."""

from dataclasses import dataclass
from math import gcd, sqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from kdnas.distill.fast_training import FastTraining
from kdnas.distill.objective import Objective
from kdnas.distill.options import PUBLISHED_RELATIONS
from kdnas.errors import UsageError
from kdnas.models.family import family_of, shape_of, token_types

PUBLISHED_HEADS = 48
Vectors = dict[str, Tensor]  # "Q", "K" and "V": concatenated queries, keys or values of all heads, (B, T, D)


def resolve_relation_heads(relation_heads: int | None, student_hidden: int, teacher_hidden: int) -> int:
    """Check a number of relation heads, or pick one.

    Args:
        relation_heads: must divide both widths; None uses 48, or the largest common divisor below it.
        student_hidden: hidden size D_S of the student.
        teacher_hidden: hidden size D_T of the teacher.

    Raises:
        UsageError: the number does not divide both widths; the message lists the valid ones.
    """
    common = gcd(student_hidden, teacher_hidden)
    valid = [heads for heads in range(1, common + 1) if common % heads == 0]
    if relation_heads is None:
        return max(heads for heads in valid if heads <= PUBLISHED_HEADS)
    if relation_heads not in valid:
        raise UsageError(
            f"relation_heads is {relation_heads}, which does not divide both the student's hidden size "
            f"{student_hidden} and the teacher's {teacher_hidden}; valid counts: {', '.join(map(str, valid))}"
        )
    return relation_heads


def resolve_teacher_layer(teacher_layer: int | None, teacher_layers: int) -> int:
    """Check the imitated teacher layer, 1-based; None uses the second to last, as published (11 of 12).

    Raises:
        UsageError: the teacher has no such layer.
    """
    if teacher_layer is None:
        return max(1, teacher_layers - 1)
    if not 1 <= teacher_layer <= teacher_layers:
        raise UsageError(f"teacher_layer is {teacher_layer}; this teacher's layers are 1 to {teacher_layers}")
    return teacher_layer


def relation_logits(left: Tensor, right: Tensor, heads: int, mask: Tensor) -> Tensor:
    """Log of Eq. 6, log softmax(A B' / sqrt(d_r)), in float32, without padded keys.

    Args:
        left: A, concatenated queries, keys or values of all attention heads, (B, T, D).
        right: B, the same or another one of the three, (B, T, D).
        heads: number of relation heads; d_r = D / heads.
        mask: (B, T), 1 at real tokens.

    Returns:
        (B, heads, T, T), normalised over the last axis.
    """
    batch, seq_len, width = left.shape
    rows, columns = (
        vectors.float().view(batch, seq_len, heads, width // heads).transpose(1, 2) for vectors in (left, right)
    )
    scores = rows @ (columns / sqrt(width // heads)).transpose(-1, -2)
    # Finite, so that 0 * (log p - log q) at a padded key is 0 and not NaN.
    scores += (1 - mask[:, None, None, :].float()) * (torch.finfo(scores.dtype).min / 2)
    return F.log_softmax(scores, dim=-1)


def relation_loss(teacher: tuple[Tensor, Tensor], student: tuple[Tensor, Tensor], heads: int, mask: Tensor) -> Tensor:
    """Eq. 5 for one relation: KL(teacher || student), averaged over relation heads and real query positions.

    Args:
        teacher: the two related tensors of the teacher, each (B, T, D_T).
        student: the same two of the student, each (B, T, D_S).
        heads: number of relation heads; must divide both widths.
        mask: (B, T), 1 at real tokens.

    Returns:
        A scalar, in float32.
    """
    with torch.autocast(mask.device.type, enabled=False):
        with torch.no_grad():
            target = relation_logits(*teacher, heads, mask)
            probabilities = target.exp()
        divergence = (probabilities * (target - relation_logits(*student, heads, mask))).sum(-1)  # (B, heads, T)
        real = mask.float()
        return (divergence.mean(1) * real).sum() / real.sum()


@dataclass(frozen=True)
class Relations:
    """The relations to imitate.

    Args:
        teacher_layer: imitated layer, 1-based, from `resolve_teacher_layer`.
        heads: number of relation heads, from `resolve_relation_heads`.
        names: relations, each two of the letters Q, K and V, such as `QQ`; `QK` is attention itself, as in the first MiniLM.
    """

    teacher_layer: int
    heads: int
    names: tuple[str, ...] = PUBLISHED_RELATIONS

    def losses(self, teacher: Vectors, student: Vectors, mask: Tensor) -> Tensor:
        """Eq. 5 of each relation, (n_relations,)."""
        return torch.stack(
            [
                relation_loss(
                    (teacher[name[0]], teacher[name[1]]), (student[name[0]], student[name[1]]), self.heads, mask
                )
                for name in self.names
            ]
        )

    def metrics(self, losses: Tensor) -> dict[str, Any]:
        """Mean loss, and the loss of each relation, from (n_relations,)."""
        return {
            "validation_loss": float(losses.mean()),
            "explained_variance": None,
            "layers": {},
            "relations": dict(zip(self.names, losses.tolist(), strict=True)),
        }


def queries_keys_values(encoder: PreTrainedModel, layer: int, below: Tensor) -> Vectors:
    """Queries, keys and values of a layer (1-based), each (B, T, D), from the output (B, T, D) of the layer below.

    All families apply the three maps directly to this output. Other operations, such as MPNet's position bias, come later.
    """
    parts = family_of(encoder.config).layer(encoder, layer)
    return {"Q": parts.query(below), "K": parts.key(below), "V": parts.value(below)}


class QueriesKeysValues(nn.Module):
    """Queries, keys and values of one layer. Nothing after them is computed.

    Args:
        encoder: encoder without pooler; its weights are shared, not copied.
        layer: 1-based.
    """

    def __init__(self, encoder: PreTrainedModel, layer: int) -> None:
        super().__init__()
        self.encoder, self.layer = encoder, layer
        self.below = family_of(encoder.config).first_layers(encoder, layer - 1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Vectors:
        """Each (B, T, D), from ids, mask and token types (B, T)."""
        types = token_types(self.encoder.config, token_type_ids)
        states = self.below(input_ids=input_ids, attention_mask=attention_mask, **types).last_hidden_state
        return queries_keys_values(self.encoder, self.layer, states)


class RelationObjective(Objective):
    """Student, frozen teacher and MiniLM-v2's loss as one module. Its parameters are the student's.

    The part of the student's last layer after the values gets no gradient, as published. It keeps its weights from the
    hidden-state stage.

    Args:
        student: encoder without pooler.
        teacher: encoder without pooler; not a submodule, so it is neither trained nor saved.
        relations: relations to imitate.
    """

    name = "minilm-v2"

    def __init__(self, student: PreTrainedModel, teacher: PreTrainedModel, relations: Relations) -> None:
        super().__init__()
        self.student, self.relations = student, relations
        # In a tuple: these share weights, which must not be in the state or the parameters twice.
        self._views = (
            QueriesKeysValues(student, shape_of(student.config).layers),
            QueriesKeysValues(teacher, relations.teacher_layer),
        )

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
        targets: Vectors | None = None,
    ) -> Tensor:
        """Loss of each relation, (n_relations,); `targets` are the teacher's queries, keys and values."""
        student, teacher = self._views
        if targets is None:
            with torch.inference_mode():
                targets = teacher(input_ids, attention_mask, token_type_ids)
        with FastTraining():
            outputs = student(input_ids, attention_mask, token_type_ids)
        return self.relations.losses(targets, outputs, attention_mask)

    def metrics(self, losses: Tensor) -> dict[str, Any]:
        """Mean loss, and the loss of each relation."""
        return self.relations.metrics(losses)
