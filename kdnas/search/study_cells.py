"""What the runs of a study say about a strategy: means and medians, with bootstrap intervals over teachers, limits and runs."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

KEYS = ("recording", "limit", "strategy", "hint", "run")  # of a run
GRID = 20  # parts of the schedule after which a run is described
RESAMPLES = 1000
ENDS = (0.025, 0.975)  # quantiles of the interval
ROUNDED = 1e-6  # of the regrets that are kept


@dataclass(frozen=True)
class Cell:
    """The runs of one strategy on the recording of one teacher, with or without the hint.

    Args:
        strategy: name of the strategy.
        hint: whether it knew the teacher's shape.
        teacher: name of the teacher.
        rows: for each limit its runs, equally many.
    """

    strategy: str
    hint: bool
    teacher: str
    rows: Sequence[Sequence[Mapping[str, Any]]]

    @cached_property
    def needed(self) -> np.ndarray:
        """Evaluations until the target, (limits, runs); infinite if it was not reached."""
        return np.array(
            [[math.inf if row["needed"] is None else row["needed"] for row in rows] for rows in self.rows], dtype=float
        )

    @cached_property
    def regret(self) -> np.ndarray:
        """Regret after each part of the schedule, (limits, runs, GRID)."""
        return np.array([[row["regret"] for row in rows] for rows in self.rows])

    @cached_property
    def front(self) -> np.ndarray:
        """Fraction of the best front after each part of the schedule, (limits, runs, GRID)."""
        return np.array([[row["front"] for row in rows] for rows in self.rows])


@dataclass(frozen=True)
class Estimate:
    """A statistic and its 95 % interval."""

    value: float
    low: float
    high: float


def mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis."""
    return np.asarray(values.mean(-1))


def median(values: np.ndarray) -> np.ndarray:
    """Median over the last axis, without mixing two values: infinite ones are allowed."""
    return np.asarray(np.sort(values, axis=-1)[..., (values.shape[-1] - 1) // 2])


def estimate(values: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray]) -> Estimate:
    """A statistic over all runs, with the interval of a nested bootstrap: teachers, limits of each, runs of each.

    Args:
        values: (teachers, limits, runs).
        statistic: maps (..., n) to (...).
    """
    flat = values.reshape(-1)
    drawn = np.sort(
        statistic(flat[_resampled(*values.shape)])
    )  # not np.percentile, which cannot interpolate infinite values
    low, high = (drawn[int(end * (RESAMPLES - 1))] for end in ENDS)
    return Estimate(float(statistic(flat)), float(low), float(high))


@lru_cache(maxsize=8)
def _resampled(teachers: int, limits: int, runs: int) -> np.ndarray:
    """Indices of each resample in the flat values, (RESAMPLES, teachers * limits * runs)."""
    rng = np.random.default_rng(0)
    by_teacher = rng.integers(teachers, size=(RESAMPLES, teachers))[:, :, None]
    by_limit = (by_teacher * limits + rng.integers(limits, size=(RESAMPLES, teachers, limits)))[..., None]
    return (by_limit * runs + rng.integers(runs, size=(RESAMPLES, teachers, limits, runs))).reshape(RESAMPLES, -1)


def metrics(cells: Sequence[Cell], target: float, default: Sequence[Cell]) -> dict[str, Estimate]:
    """The metrics of a strategy over the teachers.

    Args:
        cells: its cell for each teacher.
        target: fraction of the best reward that counts as reached.
        default: cells of the strategy to compare with, for the same teachers in the same order.
    """
    regret = np.array([cell.regret for cell in cells])
    front = np.array([cell.front for cell in cells])
    quarter, half, end = GRID // 4 - 1, GRID // 2 - 1, GRID - 1
    others = np.array([cell.regret[:, :, half].mean(1) for cell in default])
    over_default = (regret[..., half].mean(2) - others)[..., None]
    return {
        "regret_quarter": estimate(regret[..., quarter], mean),
        "regret_half": estimate(regret[..., half], mean),
        "reached_half": estimate((regret[..., half] <= 1 - target + ROUNDED).astype(float), mean),
        "evaluations_needed": estimate(np.array([cell.needed for cell in cells]), median),
        "front_half": estimate(front[..., half], mean),
        "front_end": estimate(front[..., end], mean),
        "regret_half_over_default": estimate(over_default, mean),
    }
