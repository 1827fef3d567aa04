"""Distances between architectures, and architectures spread over a space: each is the farthest from those before it."""

from collections.abc import Sequence

import numpy as np

from kdnas.models.arch import FIELDS, Arch

ACTIVATIONS = ("gelu", "relu", "silu")


def features(states: Sequence[Arch], teacher: Arch | None = None) -> np.ndarray:
    """Features for a model of the loss, (N, d), standardised: shape, size without embeddings, activation.

    Args:
        states: N architectures.
        teacher: if given, adds each architecture's deficit in heads and width. Students start as the teacher's
            layers cut to their shape, so exceeding the teacher does not help.
    """
    rows = [
        [
            np.log(arch.layers), np.log(arch.heads), np.log(arch.hidden), np.log(arch.ffn), np.log(arch.layer_parameters),
            *(arch.activation == name for name in ACTIVATIONS), *_lacks(arch, teacher),
        ]
        for arch in states
    ]  # fmt: skip
    values = np.array(rows, dtype=np.float64)
    deviation = values.std(0)
    return np.asarray((values - values.mean(0)) / np.where(deviation > 0, deviation, 1.0))


def _lacks(arch: Arch, teacher: Arch | None) -> list[float]:
    """Log ratios of the teacher's heads and width to the student's, at least 0."""
    if teacher is None:
        return []
    return [max(0.0, np.log(teacher.heads / arch.heads)), max(0.0, np.log(teacher.hidden / arch.hidden))]


def gower(states: Sequence[Arch], other: Arch) -> np.ndarray:
    """Gower's distance of architectures from another one, (N,): summed over the fields, 1 from the smallest to the largest value.

    Numbers count by their rank among the values present, and different texts are 1 apart (Gower 1971, times the fields).
    """
    distance = np.zeros(len(states))
    for name in FIELDS:
        column, value = [getattr(arch, name) for arch in states], getattr(other, name)
        if isinstance(value, str):
            distance += [one != value for one in column]
        else:
            ranks = {found: rank for rank, found in enumerate(sorted({*column, value}))}
            distance += np.abs([ranks[one] - ranks[value] for one in column]) / max(1, len(ranks) - 1)
    return distance


def nearest(distance: np.ndarray, left: np.ndarray, rng: np.random.Generator) -> int:
    """Index of the smallest distance, (N,), among those left, (N,) bool; ties are broken at random."""
    from_least = np.where(left, distance, np.inf) - distance[left].min()
    return int(rng.choice(np.flatnonzero(from_least < 1e-9)))


def farthest(points: np.ndarray, left: np.ndarray, rng: np.random.Generator) -> int:
    """Index of the point among those left that is farthest from all others; a random one if all are left.

    Args:
        points: (N, d).
        left: (N,) bool.
        rng: draws the first point.
    """
    if left.all():
        return int(rng.integers(len(left)))
    distance = np.full(len(points), np.inf)
    for point in points[~left]:
        np.minimum(distance, ((points - point) ** 2).sum(1), out=distance)
    return int(np.argmax(np.where(left, distance, -1.0)))


def spread(states: Sequence[Arch], count: int, seed: int) -> list[Arch]:
    """`count` architectures, each the farthest from all before it; all of them if there are fewer."""
    chosen: list[Arch] = []
    points, left = features(states), np.ones(len(states), dtype=bool)
    rng = np.random.default_rng(seed)
    distance = np.full(len(states), np.inf)
    for _ in range(min(count, len(states))):
        index = int(np.argmax(np.where(left, distance, -1.0))) if chosen else int(rng.integers(len(states)))
        np.minimum(distance, ((points - points[index]) ** 2).sum(1), out=distance)
        left[index] = False
        chosen.append(states[index])
    return chosen
