"""The front of loss, latency and memory: what the one number of the reward hides."""

from collections.abc import Sequence

import numpy as np

Point = tuple[float, ...]


def pareto_front(points: Sequence[Point]) -> list[int]:
    """Places of the points that no other point beats, all coordinates to be small.

    A point is beaten by one that is no larger in any coordinate and smaller in one. Equal points are all kept.

    Args:
        points: N of two or more coordinates, as in (loss, latency_ms); finite.

    Returns:
        Places in `points`, by rising second coordinate, then by place.
    """
    if not points:
        return []
    values = np.asarray(points, dtype=np.float64)
    no_larger = (values[:, None] <= values[None]).all(-1)
    smaller = (values[:, None] < values[None]).any(-1)
    front = np.flatnonzero(~(no_larger & smaller).any(0))
    return [int(place) for place in front[np.argsort(values[front, 1], kind="stable")]]


def improvements(points: np.ndarray, candidates: np.ndarray, worst: Sequence[float]) -> np.ndarray:
    """How much more of the space below `worst` would be beaten with each candidate, (N,).

    Args:
        points: (n, 3) what there is: loss, latency, memory.
        candidates: (N, 3).
        worst: (3,) what is not wanted any more, as in (1, the teacher's latency, the largest model).
    """
    gains = np.zeros(len(candidates))
    levels = np.unique(np.concatenate([[-np.inf], points[:, 2]]))
    for level, above in zip(levels, [*levels[1:], np.inf], strict=True):
        thickness = np.minimum(above, worst[2]) - np.maximum(level, candidates[:, 2])
        gains += np.maximum(thickness, 0.0) * _areas(points[points[:, 2] <= level, :2], candidates[:, :2], worst)
    return gains


def _areas(points: np.ndarray, candidates: np.ndarray, worst: Sequence[float]) -> np.ndarray:
    """The same in the plane of the first two coordinates: between each candidate and the stairs of the points."""
    order = np.argsort(points[:, 1], kind="stable")
    starts = np.concatenate([[-np.inf], points[order, 1]])
    heights = np.minimum.accumulate(np.concatenate([[worst[0]], points[order, 0]]))
    areas = np.zeros(len(candidates))
    for start, end, height in zip(starts, [*starts[1:], np.inf], heights, strict=True):
        width = np.minimum(end, worst[1]) - np.maximum(start, candidates[:, 1])
        areas += np.maximum(width, 0.0) * np.maximum(height - candidates[:, 0], 0.0)
    return areas


def hypervolume(points: Sequence[Point], worst: Sequence[float]) -> float:
    """Share of the box between the origin and `worst` that the points beat, of loss, latency and memory.

    Args:
        points: N of three coordinates; those beyond `worst` add nothing.
        worst: what is not wanted any more.
    """
    values, total = np.asarray(points, dtype=np.float64).reshape(-1, 3), 0.0
    for place in range(len(values)):
        total += float(improvements(values[:place], values[place : place + 1], worst)[0])
    return total / float(np.prod(worst))
