"""The front of loss against latency: what the one number of the reward hides."""

from collections.abc import Sequence

import numpy as np


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Places of the points that no other point beats, both coordinates to be small.

    A point is beaten by one that is no larger in both coordinates and smaller in one. Equal points are all kept.

    Args:
        points: N pairs, as in (loss, latency_ms); finite.

    Returns:
        Places in `points`, by rising second coordinate, then by place.
    """
    if not points:
        return []
    values = np.asarray(points, dtype=np.float64)
    order = np.lexsort((values[:, 0], values[:, 1]))  # by the second coordinate, then by the first
    front: list[int] = []
    best = (np.inf, np.inf)
    for place in order:
        point = (float(values[place, 0]), float(values[place, 1]))
        if point[0] < best[0] or point == best:
            front.append(int(place))
            best = point
    return front
