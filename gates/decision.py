"""Three-way decisions on pairs of processes: slower beyond doubt, not slower beyond doubt, or more pairs are needed.

Two sides are timed by fresh processes in the order A B B A A B B A. Each neighbouring A and B make a pair, and the median of the
logarithms of their ratios, with its bootstrap interval over the pairs, says how much slower B is. Neighbours of one side, B B and
A A, make pairs as well, of which the truth is known: they say what this host does to a ratio by itself, and set the threshold of
slower. A noisy host raises that one alone: not slower is said only of what lies below the least slowdown that matters.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

ORDER = "ABBA"
RESAMPLES = 4000
WIDENING = 3.0  # half-widths of the job's own A/A interval that a slowdown must exceed


class Outcome(StrEnum):
    """What is said of a benchmark."""

    REGRESSION = "REGRESSION"
    OK = "OK"
    INCONCLUSIVE = "INCONCLUSIVE"
    UNFIT = "UNFIT"
    FAILED = "FAILED"


@dataclass(frozen=True)
class Rule:
    """When is what said.

    Args:
        least: smallest slowdown that matters, as a share.
        most: a host whose own noise asks for a larger threshold is unfit.
        alpha: probability to be wrong about a side of the threshold, over all looks and benchmarks.
        looks: numbers of pairs after which it is decided, rising.
    """

    least: float = 0.05
    most: float = 0.15
    alpha: float = 0.05
    looks: tuple[int, ...] = (8, 14, 24, 40)

    def __post_init__(self) -> None:
        from kdnas.errors import UsageError

        if not 0 < self.least <= self.most:
            raise UsageError(f"least is {self.least}, most {self.most}; both are shares above 0, the first no larger")
        if not 0 < self.alpha < 0.5:
            raise UsageError(f"alpha is {self.alpha}; allowed is between 0 and 0.5")
        if (
            not self.looks
            or min(self.looks) < 4
            or any(b <= a for a, b in zip(self.looks, self.looks[1:], strict=False))
        ):
            raise UsageError(f"looks is {self.looks}; give rising numbers of pairs, each at least 4")


@dataclass(frozen=True)
class Interval:
    """A median of logarithms of ratios, and its bootstrap interval."""

    low: float
    middle: float
    high: float

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Verdict:
    """What is said of a benchmark, and why.

    Args:
        outcome: of the look that decided, or else of the last one.
        pairs: that it rests on.
        ratio: head over base, median and interval.
        threshold: share by which the head must be slower to be called so.
        noise: the same of pairs of one side.
    """

    outcome: Outcome
    pairs: int
    ratio: tuple[float, float, float]
    threshold: float
    noise: tuple[float, float, float]

    @property
    def decided(self) -> bool:
        return self.outcome in (Outcome.OK, Outcome.REGRESSION)


def side_of(number: int) -> str:
    """Side of a process by its number, from 0: A B B A A B B A and so on."""
    return ORDER[number % len(ORDER)]


def pairs_of(values: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Logarithms of B over A of each pair, (n / 2,), and of later over earlier of one side's neighbours, (n / 2 - 1,).

    Args:
        values: (n,) positive, of processes in their order.

    Raises:
        ValueError: a value is not above 0.
    """
    if any(not value > 0 for value in values):
        raise ValueError("a benchmark's result is not above 0")
    logs = np.log(np.asarray(values[: len(values) // 2 * 2], dtype=np.float64))
    signs = np.where(np.arange(len(logs) // 2) % 2 == 0, 1.0, -1.0)  # A B, then B A
    return signs * (logs[1::2] - logs[::2]), logs[2::2] - logs[1:-1:2]


def bootstrap_median(values: np.ndarray, level: float, rng: np.random.Generator) -> Interval:
    """Median of some values with the interval that holds the medians of this share of resamples."""
    medians = np.median(rng.choice(values, (RESAMPLES, len(values))), axis=1)
    low, high = np.quantile(medians, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(np.median(values)), float(high))


def decide(values: Sequence[float], rule: Rule, benchmarks: int = 1) -> Verdict:
    """What a benchmark's results say at this look.

    Args:
        values: seconds of the processes in their order, two a pair.
        rule: thresholds and looks.
        benchmarks: that are decided on in this job, over which alpha is split as over the looks.

    Raises:
        ValueError: a value is not above 0, or there are fewer than two pairs.
    """
    ratios, same = pairs_of(values)
    if len(ratios) < 2:
        raise ValueError("fewer than two pairs")
    rng = np.random.default_rng(len(ratios))
    level = 1 - 2 * rule.alpha / (len(rule.looks) * benchmarks)
    noise = bootstrap_median(same, 0.95, rng)
    found = bootstrap_median(ratios, level, rng)
    threshold = max(rule.least, WIDENING * noise.half_width)
    limit = float(np.log1p(threshold))
    if len(ratios) < rule.looks[0]:  # broken off early: an interval of so few pairs says nothing
        outcome = Outcome.INCONCLUSIVE
    elif threshold > rule.most or abs(noise.middle) > limit:
        outcome = Outcome.UNFIT
    elif found.low > limit:
        outcome = Outcome.REGRESSION
    elif found.high < np.log1p(rule.least):
        outcome = Outcome.OK
    else:
        outcome = Outcome.INCONCLUSIVE
    return Verdict(outcome, len(ratios), _ratio(found), threshold, _ratio(noise))


def judge(values: Sequence[float], rule: Rule, benchmarks: int = 1) -> Verdict:
    """What the first look that decides says, or else the last one that these results allow; arguments as of `decide`."""
    for look in rule.looks:
        if 2 * look <= len(values):
            verdict = decide(values[: 2 * look], rule, benchmarks)
            if verdict.decided:
                return verdict
    return decide(values, rule, benchmarks)


def _ratio(interval: Interval) -> tuple[float, float, float]:
    """Low, median and high as ratios."""
    return float(np.exp(interval.low)), float(np.exp(interval.middle)), float(np.exp(interval.high))
