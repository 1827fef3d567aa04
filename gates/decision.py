"""Three-way decisions on pairs of processes: slower, not slower, or more pairs are needed.

Fresh processes time the two sides in the order A B B A A B B A. Each neighbouring A and B form a pair. The median of the log
ratios estimates how much slower B is. Its interval comes from order statistics (`intervals.py`). It holds for independent pairs
with any noise, and for few pairs as for many. Neighbours from one side (B B and A A) form pairs too. Their true ratio is 1, so
they measure the noise of the host, which sets the threshold for "slower". Noise raises only that threshold: "not slower" always
needs an interval below the smallest slowdown that matters.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from kdnas.gates.intervals import Interval, median_interval, ranks

ORDER = "ABBA"
NOISE_ALPHA = 0.025  # on each side of the interval of the noise, at one look
LEAST_PAIRS = 7  # so that 6 neighbours from one side bound the interval of the noise: 0.5 ** 6 <= NOISE_ALPHA
WIDENING = 3.0  # half-widths of the job's own A/A interval that a slowdown must exceed


class Outcome(StrEnum):
    """Verdict on a benchmark."""

    REGRESSION = "REGRESSION"
    OK = "OK"
    INCONCLUSIVE = "INCONCLUSIVE"
    UNFIT = "UNFIT"
    FAILED = "FAILED"


@dataclass(frozen=True)
class Rule:
    """Decision rule of a comparison.

    Args:
        least: smallest slowdown that matters, as a fraction.
        most: largest threshold, as a fraction; a host whose noise needs a larger one is unfit.
        alpha: probability of an error on one side of the threshold, over all looks and benchmarks.
        looks: increasing numbers of pairs after which the comparison tries to decide. A look at too few pairs for alpha and the
            number of benchmarks decides nothing. With the defaults 10 pairs are enough for 12 benchmarks.
    """

    least: float = 0.05
    most: float = 0.15
    alpha: float = 0.05
    looks: tuple[int, ...] = (10, 16, 24, 40)

    def __post_init__(self) -> None:
        from kdnas.errors import UsageError

        if not 0 < self.least <= self.most:
            raise UsageError(f"least is {self.least}, most {self.most}; they must satisfy 0 < least <= most")
        if not 0 < self.alpha < 0.5:
            raise UsageError(f"alpha is {self.alpha}; it must be between 0 and 0.5")
        if (
            not self.looks
            or min(self.looks) < LEAST_PAIRS
            or any(b <= a for a, b in zip(self.looks, self.looks[1:], strict=False))
        ):
            raise UsageError(
                f"looks is {self.looks}; it must be increasing numbers of pairs, each at least {LEAST_PAIRS}"
            )


@dataclass(frozen=True)
class Verdict:
    """Verdict on a benchmark with its evidence.

    Args:
        outcome: outcome of the look that decided, else of the last look.
        pairs: number of pairs used for the outcome.
        ratio: head over base: low end, median, high end. Without a bounded interval the ends are 0 and infinity.
        threshold: minimum slowdown, as a fraction, at which the head counts as slower.
        noise: like `ratio`, for pairs from one side.
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
    """Side of a process by its index, from 0: A B B A A B B A and so on."""
    return ORDER[number % len(ORDER)]


def pairs_of(values: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Log ratios B over A of all pairs, (n / 2,), and later over earlier of neighbours from one side, (n / 2 - 1,).

    Args:
        values: (n,) positive results of the processes in order.

    Raises:
        ValueError: a value is not above 0.
    """
    if any(not value > 0 for value in values):
        raise ValueError("a benchmark's result is not above 0")
    logs = np.log(np.asarray(values[: len(values) // 2 * 2], dtype=np.float64))
    signs = np.where(np.arange(len(logs) // 2) % 2 == 0, 1.0, -1.0)  # A B, then B A
    return signs * (logs[1::2] - logs[::2]), logs[2::2] - logs[1:-1:2]


def decide(values: Sequence[float], rule: Rule, benchmarks: int = 1) -> Verdict:
    """Verdict on a benchmark at this look.

    Args:
        values: seconds of the processes in order, two per pair.
        rule: thresholds and looks.
        benchmarks: number of benchmarks in this job; alpha is split over them and over the looks.

    Raises:
        ValueError: a value is not above 0, or there are fewer than two pairs.
    """
    ratios, same = pairs_of(values)
    if len(ratios) < 2:
        raise ValueError("fewer than two pairs")
    noise = median_interval(same, ranks((len(same),), NOISE_ALPHA, 1)[-1])
    found = median_interval(ratios, _rank(len(ratios), rule, benchmarks))
    threshold = max(rule.least, WIDENING * noise.half_width) if noise.bounded else rule.least
    limit = float(np.log1p(threshold))
    if len(ratios) < rule.looks[0]:  # interrupted before the first look
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


def _rank(pairs: int, rule: Rule, benchmarks: int) -> int:
    """Rank of the interval after so many pairs. A job that runs out of time between two looks takes the later one early.

    If such a job is resumed, it still takes all planned looks: the early one is then an extra look, beyond the allotted error.
    """
    looks = (*(look for look in rule.looks if look < pairs), pairs)
    return ranks(looks, rule.alpha / benchmarks, len(rule.looks))[-1]


def judge(values: Sequence[float], rule: Rule, benchmarks: int = 1) -> Verdict:
    """Verdict of the first look that decides, else of the last look that these results allow; arguments as in `decide`."""
    for look in rule.looks:
        if 2 * look <= len(values):
            verdict = decide(values[: 2 * look], rule, benchmarks)
            if verdict.decided:
                return verdict
    return decide(values, rule, benchmarks)


def _ratio(interval: Interval) -> tuple[float, float, float]:
    """Low, median and high as ratios."""
    return float(np.exp(interval.low)), float(np.exp(interval.middle)), float(np.exp(interval.high))
