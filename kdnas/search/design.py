"""Architectures that are spread over a space: each the farthest from all before it."""

from collections.abc import Sequence

import numpy as np

from kdnas.arch import Arch
from kdnas.search.choice import Choice

ACTIVATIONS = ("gelu", "relu", "silu")


def features(states: Sequence[Arch]) -> np.ndarray:
    """What a loss may depend on, (N, d), each of mean 0 and deviation 1: shape, size without embeddings, activation."""
    engines = sorted({arch.engine for arch in states if isinstance(arch, Choice)})
    rows = [
        [
            np.log(arch.layers), np.log(arch.heads), np.log(arch.hidden), np.log(arch.ffn), np.log(arch.layer_parameters),
            *(arch.activation == name for name in ACTIVATIONS), *_more(arch, engines),
        ]
        for arch in states
    ]  # fmt: skip
    values = np.array(rows, dtype=np.float64)
    deviation = values.std(0)
    return np.asarray((values - values.mean(0)) / np.where(deviation > 0, deviation, 1.0))


def _more(arch: Arch, engines: Sequence[str]) -> list[float]:
    """Of a choice the vocabulary, by its logarithm and whether it is whole, and the engine."""
    if not isinstance(arch, Choice):
        return []
    return [np.log(max(arch.vocabulary, 1)), not arch.vocabulary, *(arch.engine == name for name in engines)]


def farthest(points: np.ndarray, left: np.ndarray, rng: np.random.Generator) -> int:
    """The place of the point, of those left, that is farthest from all others; a random one where all are left.

    Args:
        points: (N, d).
        left: (N,) bool.
        rng: draws the first.
    """
    if left.all():
        return int(rng.integers(len(left)))
    distance = np.full(len(points), np.inf)
    for point in points[~left]:
        np.minimum(distance, ((points - point) ** 2).sum(1), out=distance)
    return int(np.argmax(np.where(left, distance, -1.0)))


def spread(states: Sequence[Arch], count: int, seed: int) -> list[Arch]:
    """So many architectures, each the farthest from all before it; all of them where there are no more."""
    chosen: list[Arch] = []
    points, left = features(states), np.ones(len(states), dtype=bool)
    rng = np.random.default_rng(seed)
    distance = np.full(len(states), np.inf)
    for _ in range(min(count, len(states))):
        place = int(np.argmax(np.where(left, distance, -1.0))) if chosen else int(rng.integers(len(states)))
        np.minimum(distance, ((points - points[place]) ** 2).sum(1), out=distance)
        left[place] = False
        chosen.append(states[place])
    return chosen
