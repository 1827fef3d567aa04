"""Initial layers of a student: its teacher's layers (mapping `uniform`), reduced to its shape, instead of random weights.

A student that starts with its teacher's embeddings (`kdnas.models.student.student_from_teacher`) has states in a basis
P (D_T, D_S) of the teacher's states: x_S = P' x_T. In this basis every map of a teacher layer has a best approximation in the
student's shape:

- Attention: the scores of a head are x' (Wq' Wk) y, and its output is Wo Wv y. Truncated SVD approximates both products within
  the student's head size. If the student has fewer heads, each of its heads joins several teacher heads.
- Feed-forward: the neurons with the largest outputs are kept, and their output map is fitted by least squares to the output of
  all neurons on sample sentences.
"""

from collections.abc import Iterable
from math import sqrt

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kdnas.distill.mapping import Mapping, layer_pairs
from kdnas.distill.neurons import cut_layers, sample_of, second_moments
from kdnas.models.family import family_of, shape_of
from kdnas.models.parts import Layer
from kdnas.models.student import principal_basis, put_norm

RIDGE = 1e-3  # relative to the mean square of a neuron


class TeacherLayers:
    """The layers of a frozen teacher, and the outputs of their neurons on sample sentences.

    Args:
        teacher: encoder without pooler.
        batches: ids and mask, each (B, T); read until `SAMPLE_TOKENS` real tokens are reached.
        moments: second moments of the neurons of layers, as from `kept_moments`; the teacher runs for missing ones only.
    """

    def __init__(
        self,
        teacher: PreTrainedModel,
        batches: Iterable[tuple[Tensor, Tensor]],
        moments: dict[int, Tensor] | None = None,
    ) -> None:
        self._teacher, self._family = teacher, family_of(teacher.config)
        self._batches, self._moments = sample_of(batches), dict(moments or {})

    @torch.no_grad()
    def start(self, student: PreTrainedModel) -> None:
        """Overwrite the layers of a student that has its teacher's embeddings; parts without counterpart are unchanged."""
        ours, theirs = shape_of(student.config), shape_of(self._teacher.config)
        basis = principal_basis(self._family.embeddings(self._teacher).words.weight.float(), ours.hidden)
        needed = cut_layers([ours.layers], ours.ffn, self._teacher)
        if missing := [number for number in needed if number not in self._moments]:
            self._moments |= second_moments(self._teacher, self._batches, missing)
        for index, number in layer_pairs(ours.layers, theirs.layers, Mapping.UNIFORM):
            layer = family_of(student.config).layer(student, index)
            if theirs.heads % ours.heads == 0:
                _start_attention(layer, self._family.layer(self._teacher, number), basis, (ours.heads, theirs.heads))
            self._start_feed_forward(layer, number, basis)

    def _start_feed_forward(self, layer: Layer, number: int, basis: Tensor) -> None:
        source = self._family.layer(self._teacher, number)
        write, bias = basis.T @ source.contract.weight, basis.T @ source.contract.bias
        kept = min(layer.expand.out_features, source.expand.out_features)
        indices = torch.arange(kept, device=write.device)
        if kept < source.expand.out_features:
            moments = self._moments[number].to(write.device)
            indices = (moments.diagonal()[:-1].sqrt() * write.norm(dim=0)).topk(kept).indices.sort().values
            write, bias = _fitted(moments, indices, write, bias)
        read = source.expand.weight @ basis
        _put(layer.expand, read[indices], source.expand.bias[indices])
        layer.contract.weight.zero_()
        _put(layer.contract, write, bias)
        put_norm(layer.output_norm, source.output_norm, basis)


def thin(left: Tensor, right: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Factors (M, width) and (width, N) of the best approximation of left @ right, given (M, K) and (K, N).

    If `width` is above K, the factors are padded with zeros; if it equals K, they are unchanged.
    """
    inner = left.shape[1]
    if width >= inner:
        return nn.functional.pad(left, (0, width - inner)), nn.functional.pad(right, (0, 0, 0, width - inner))
    outer, upper = torch.linalg.qr(left.double())
    other, lower = torch.linalg.qr(right.T.double())
    start, values, end = torch.linalg.svd(upper @ lower.T)
    root = values[:width].sqrt()
    return (outer @ start[:, :width] * root).float(), (root[:, None] * (end[:width] @ other.T)).float()


def _start_attention(layer: Layer, source: Layer, basis: Tensor, counts: tuple[int, int]) -> None:
    """Set the student's heads from those of a teacher layer. If the student has fewer heads, each joins several.

    Args:
        layer: layer of the student.
        source: layer of the teacher.
        basis: basis (D_T, D_S) of the student's states.
        counts: number of heads of the student and of the teacher.
    """
    heads, theirs = counts
    size, inner = layer.query.out_features // heads, source.query.out_features // heads
    # Scores are divided by the square root of the head size, and the scores of joined heads are averaged.
    scale = sqrt(sqrt(size / (source.query.out_features // theirs)) * heads / theirs)
    parts = {"query": source.query, "key": source.key, "value": source.value}
    maps = {
        name: torch.cat([part.weight @ basis, part.bias[:, None]], dim=1).view(heads, inner, -1)
        for name, part in parts.items()
    }
    output = (basis.T @ source.output.weight).view(-1, heads, inner)
    for module in (layer.query, layer.key, layer.value, layer.output):
        module.weight.zero_()
    for head in range(heads):
        rows = slice(head * size, (head + 1) * size)
        query, key = thin(scale * maps["query"][head].T, scale * maps["key"][head], size)
        _put(layer.query, query.T[:, :-1], query.T[:, -1], rows)
        _put(layer.key, key[:, :-1], key[:, -1], rows)
        written, value = thin(output[:, head], maps["value"][head], size)
        _put(layer.value, value[:, :-1], value[:, -1], rows)
        layer.output.weight[: len(written), rows] = written
    layer.output.bias[: basis.shape[1]] = basis.T @ source.output.bias
    put_norm(layer.attention_norm, source.attention_norm, basis)


def _put(linear: nn.Linear, weight: Tensor, bias: Tensor, rows: slice = slice(0, None)) -> None:
    """Set rows and columns of a linear map, starting at its first row or at a given one."""
    first = rows.start or 0
    linear.weight[first : first + weight.shape[0], : weight.shape[1]] = weight
    linear.bias[first : first + len(bias)] = bias


def _fitted(moments: Tensor, indices: Tensor, write: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Output map (D_S, kept) and bias of the kept neurons, fitted by ridge regression to the output of all neurons."""
    ones = len(moments) - 1
    kept = torch.cat([indices, indices.new_tensor([ones])])
    gram = moments.double()[kept][:, kept]
    ridge = RIDGE * gram.diagonal()[:-1].mean() * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    ridge[-1, -1] = 0.0  # no penalty on the bias
    every = torch.cat([write, bias[:, None]], dim=1).double()
    solution = torch.linalg.solve(gram + ridge, moments.double()[kept] @ every.T)
    return solution[:-1].T.float(), solution[-1].float()
