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
Vectors = dict[str, Tensor]  # "Q", "K" and "V": queries, keys or values of all heads side by side, (B, T, D)


def resolve_relation_heads(relation_heads: int | None, student_hidden: int, teacher_hidden: int) -> int:
    """Check a number of relation heads, or pick one.

    Args:
        relation_heads: must divide both widths; None takes 48, or the largest common divisor below it.
        student_hidden: D_S.
        teacher_hidden: D_T.

    Raises:
        UsageError: it does not divide both widths; the message lists what does.
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
    """Check the imitated teacher layer, 1-based; None takes the last but one, as published (11 of 12).

    Raises:
        UsageError: the teacher has no such layer.
    """
    if teacher_layer is None:
        return max(1, teacher_layers - 1)
    if not 1 <= teacher_layer <= teacher_layers:
        raise UsageError(f"teacher_layer is {teacher_layer}; this teacher's layers are 1 to {teacher_layers}")
    return teacher_layer


def relation_logits(left: Tensor, right: Tensor, heads: int, mask: Tensor) -> Tensor:
    """Log of Eq. 6, log softmax(A B' / sqrt(d_r)), in float32, with padded keys left out.

    Args:
        left: A, queries, keys or values of all attention heads side by side, (B, T, D).
        right: B, the same or another of the three, (B, T, D).
        heads: relation heads; d_r = D / heads.
        mask: (B, T), 1 at real tokens.

    Returns:
        (B, heads, T, T), over the last axis.
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
        teacher: the two that are related, each (B, T, D_T).
        student: the same of the student, each (B, T, D_S).
        heads: relation heads, dividing both widths.
        mask: (B, T), 1 at real tokens.

    Returns:
        A scalar, in float32.
    """
    with torch.autocast(mask.device.type, enabled=False):
        with torch.no_grad():
            target = relation_logits(*teacher, heads, mask)
            fraction = target.exp()
        divergence = (fraction * (target - relation_logits(*student, heads, mask))).sum(-1)  # (B, heads, T)
        real = mask.float()
        return (divergence.mean(1) * real).sum() / real.sum()


@dataclass(frozen=True)
class Relations:
    """What is related, and how finely.

    Args:
        teacher_layer: imitated layer, 1-based, from `resolve_teacher_layer`.
        heads: relation heads, from `resolve_relation_heads`.
        names: each two letters of Q, K and V, as `QQ`; `QK` is attention itself, as in the first MiniLM.
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

    All families apply the three maps to it as it is; what they do with the products, as MPNet's bias, is behind them.
    """
    parts = family_of(encoder.config).layer(encoder, layer)
    return {"Q": parts.query(below), "K": parts.key(below), "V": parts.value(below)}


class QueriesKeysValues(nn.Module):
    """Queries, keys and values of one layer; nothing after them is computed.

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
    """Student, frozen teacher and MiniLM-v2's loss as one module; its parameters are the student's.

    What follows the values in the student's last layer gets no gradient, as in the publication: it keeps the weights
    that the hidden-state stage gave it.

    Args:
        student: encoder without pooler.
        teacher: encoder without pooler; not a submodule, so nothing trains or saves it.
        relations: what is imitated.
    """

    name = "minilm-v2"

    def __init__(self, student: PreTrainedModel, teacher: PreTrainedModel, relations: Relations) -> None:
        super().__init__()
        self.student, self.relations = student, relations
        # In tuples: these share weights, and must not appear in the state or the parameters a second time.
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
