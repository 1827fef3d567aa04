"""The Pareto front of loss, latency and memory, and its hypervolume."""

from collections.abc import Sequence

import numpy as np

Point = tuple[float, ...]


def pareto_front(points: Sequence[Point]) -> list[int]:
    """Indices of the points that no other point dominates, when all coordinates are minimised.

    A point dominates another if it is no larger in any coordinate and smaller in one. Equal points are all kept.

    Args:
        points: N points of two or more coordinates, as in (loss, latency_ms); finite.

    Returns:
        Indices in `points`, sorted by the second coordinate, then by index.
    """
    if not points:
        return []
    values = np.asarray(points, dtype=np.float64)
    no_larger = (values[:, None] <= values[None]).all(-1)
    smaller = (values[:, None] < values[None]).any(-1)
    front = np.flatnonzero(~(no_larger & smaller).any(0))
    return [int(index) for index in front[np.argsort(values[front, 1], kind="stable")]]


def improvements(points: np.ndarray, candidates: np.ndarray, worst: Sequence[float]) -> np.ndarray:
    """Hypervolume that each candidate would add, (N,).

    Args:
        points: (n, 3) points so far: loss, latency, memory.
        candidates: (N, 3).
        worst: (3,) reference point, as in (1, the teacher's latency, the largest model).
    """
    gains = np.zeros(len(candidates))
    levels = np.unique(np.concatenate([[-np.inf], points[:, 2]]))
    for level, above in zip(levels, [*levels[1:], np.inf], strict=True):
        thickness = np.minimum(above, worst[2]) - np.maximum(level, candidates[:, 2])
        gains += np.maximum(thickness, 0.0) * _areas(points[points[:, 2] <= level, :2], candidates[:, :2], worst)
    return gains


def _areas(points: np.ndarray, candidates: np.ndarray, worst: Sequence[float]) -> np.ndarray:
    """The same for the first two coordinates: the area between each candidate and the staircase of the points."""
    order = np.argsort(points[:, 1], kind="stable")
    starts = np.concatenate([[-np.inf], points[order, 1]])
    heights = np.minimum.accumulate(np.concatenate([[worst[0]], points[order, 0]]))
    areas = np.zeros(len(candidates))
    for start, end, height in zip(starts, [*starts[1:], np.inf], heights, strict=True):
        width = np.minimum(end, worst[1]) - np.maximum(start, candidates[:, 1])
        areas += np.maximum(width, 0.0) * np.maximum(height - candidates[:, 0], 0.0)
    return areas


def hypervolume(points: Sequence[Point], worst: Sequence[float]) -> float:
    """Fraction of the box between the origin and `worst` that the points dominate.

    Args:
        points: N points of loss, latency and memory; points beyond `worst` add nothing.
        worst: reference point.
    """
    values, total = np.asarray(points, dtype=np.float64).reshape(-1, 3), 0.0
    for index in range(len(values)):
        total += float(improvements(values[:index], values[index : index + 1], worst)[0])
    return total / float(np.prod(worst))
