"""Exact intervals of a median from order statistics, for one look at the values or for several.

A value lies below the true median with probability 1/2, whatever its distribution. The number of values below the median among n
independent ones therefore follows the binomial distribution (n, 1/2), and the interval from the r-th smallest to the r-th largest
value misses the median on one side with probability P(number < r). This is the interval of the sign test (David and Nagaraja,
Order Statistics, 3rd edition, section 7.1). It holds for every number of values, not only for many.

Several looks share the probability of an error. What the looks so far have used is computed exactly, by following the number of
values below the median from look to look, and each look uses what its predecessors left (Lan and DeMets, Biometrika 70, 1983).
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np


@dataclass(frozen=True)
class Interval:
    """Median of values with its interval. The ends are infinite if there are too few values for the confidence that is asked."""

    low: float
    middle: float
    high: float

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2

    @property
    def bounded(self) -> bool:
        return math.isfinite(self.half_width)


@lru_cache
def ranks(looks: tuple[int, ...], alpha: float, planned: int) -> tuple[int, ...]:
    """Rank r of each look: its interval runs from the r-th smallest to the r-th largest value; 0 if it is unbounded.

    Each r is the largest for which an interval of the first k looks misses the median on a given side with a probability of at
    most alpha * k / planned.

    Args:
        looks: increasing numbers of values at the looks.
        alpha: probability of an error on one side, over all planned looks.
        planned: number of looks that share alpha, at least the number of `looks`, except that looks beyond it use what is left.
    """
    remaining = np.ones(1)  # probability of each number of values below the median, without an error so far
    before, used, found = 0, 0.0, []
    for number, look in enumerate(looks, 1):
        more = look - before
        remaining = np.convolve(remaining, [math.comb(more, below) * 0.5**more for below in range(more + 1)])
        errors = used + np.cumsum(remaining)  # of the ranks 1, 2, ...
        rank = int(np.searchsorted(errors, alpha * min(number, planned) / planned, side="right"))
        used = float(errors[rank - 1]) if rank else used
        remaining[:rank] = 0.0
        before = look
        found.append(rank)
    return tuple(found)


def median_interval(values: np.ndarray, rank: int) -> Interval:
    """Median of `values` (n,), with the interval from the `rank`-th smallest to the `rank`-th largest; unbounded for rank 0."""
    ordered = np.sort(values)
    if rank == 0:
        return Interval(-math.inf, float(np.median(ordered)), math.inf)
    return Interval(float(ordered[rank - 1]), float(np.median(ordered)), float(ordered[-rank]))
