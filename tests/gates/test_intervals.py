"""Ranks of order statistics: hand-computed, and their coverage for normal, heavy-tailed and skewed noise."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdnas.gates.intervals import Interval, median_interval, ranks

TRIALS = 20_000
NOISES = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "heavy": lambda rng, shape: rng.standard_t(3, shape),
    "skewed": lambda rng, shape: rng.lognormal(size=shape) - 1,  # its median is 0
}


def test_ranks_of_one_look_match_hand_computed_binomials() -> None:
    # n = 8: P(0 below) = 1 / 256 = 0.0039; P(0 or 1 below) = 9 / 256 = 0.0352; P(at most 2) = 37 / 256 = 0.1445
    assert ranks((8,), 0.0039, 1) == (0,)
    assert ranks((8,), 1 / 256, 1) == (1,)
    assert ranks((8,), 0.035, 1) == (1,)
    assert ranks((8,), 0.0352, 1) == (2,)
    assert ranks((8,), 0.1446, 1) == (3,)
    # n = 10: 1 / 1024, 11 / 1024, 56 / 1024. The sign test's table has rank 2 at 5 % on two sides, 3 at 11 %.
    assert ranks((10,), 0.025, 1) == (2,)
    assert ranks((10,), 0.055, 1) == (3,)
    # Tables of the sign test at 2.5 % on each side: the 6th of 20, the 14th of 40 values.
    assert ranks((20,), 0.025, 1) == (6,)
    assert ranks((40,), 0.025, 1) == (14,)


def test_ranks_of_two_looks_match_hand_computed_probabilities() -> None:
    # Looks at 2 and 4 values. First look: P(0 of 2 below) = 1/4. If that did not happen, 0 of 4 below is impossible, and 1 below
    # needs 1 of the first 2 (1/2) and 0 of the next 2 (1/4). So rank 2 at the second look adds 1/8: 3/8 in all. 2 below is 1 and
    # 1 (1/2 * 1/2) or 2 and 0 (1/4 * 1/4): rank 3 adds 5/16 more, 11/16 in all.
    assert ranks((2, 4), 0.5, 2) == (1, 2)
    assert ranks((2, 4), 0.687, 2) == (1, 2)
    assert ranks((2, 4), 0.688, 2) == (1, 3)
    # Half of 0.3 is below 1/4, so the first look is unbounded. The second look then has 1/16 and 5/16 for the ranks 1 and 2.
    assert ranks((2, 4), 0.3, 2) == (0, 1)
    assert ranks((2, 4), 0.3126, 2) == (0, 2)
    # An extra look uses what is left: 1/4 is used, and 1/8 more is allowed.
    assert ranks((2, 4), 0.375, 1) == (1, 2)


@pytest.mark.parametrize("looks", [(3, 5, 8), (4, 8, 11)])
@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.4])
def test_error_over_all_looks_matches_a_count_of_all_cases(looks: tuple[int, ...], alpha: float) -> None:
    found = ranks(looks, alpha, len(looks))
    signs = np.array(list(itertools.product((0, 1), repeat=looks[-1])))
    missed = np.zeros(len(signs), dtype=bool)
    for number, (look, rank) in enumerate(zip(looks, found, strict=True), 1):
        allotted = alpha * number / len(looks)
        below = signs[:, :look].sum(1)
        assert (missed | (below < rank)).mean() <= allotted
        assert (missed | (below < rank + 1)).mean() > allotted  # a larger rank would be too many
        missed |= below < rank


def test_ends_match_hand_picked_values() -> None:
    values = np.array([5.0, 1.0, 9.0, 3.0])
    assert median_interval(values, 1) == Interval(1.0, 4.0, 9.0)
    assert median_interval(values, 2) == Interval(3.0, 4.0, 5.0)
    assert median_interval(values, 1).half_width == 4.0
    unbounded = median_interval(values, 0)
    assert (unbounded.low, unbounded.middle, unbounded.high) == (-math.inf, 4.0, math.inf)
    assert not unbounded.bounded


@given(st.lists(st.floats(-1, 1), min_size=7, max_size=40), st.sampled_from((0.001, 0.01, 0.025, 0.2)))
def test_more_confidence_never_narrows_the_interval(values: list[float], alpha: float) -> None:
    count = len(values)
    narrow = median_interval(np.array(values), ranks((count,), alpha, 1)[-1])
    wide = median_interval(np.array(values), ranks((count,), alpha / 2, 1)[-1])
    assert wide.low <= narrow.low <= narrow.middle <= narrow.high <= wide.high


def standard_error(probability: float) -> float:
    return math.sqrt(probability * (1 - probability) / TRIALS)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("count", [8, 12, 20, 40])
@pytest.mark.parametrize("alpha", [0.005, 0.025])
def test_coverage_is_at_least_the_nominal_one(noise: str, count: int, alpha: float) -> None:
    ordered = np.sort(NOISES[noise](np.random.default_rng(count), (TRIALS, count)), axis=1)
    rank = ranks((count,), alpha, 1)[-1]
    assert rank > 0
    for missed in ((ordered[:, rank - 1] > 0).mean(), (ordered[:, -rank] < 0).mean()):
        assert missed <= alpha + 4 * standard_error(alpha)


@pytest.mark.parametrize("noise", NOISES)
def test_repeated_looks_keep_the_allotted_error(noise: str) -> None:
    looks, alpha = (10, 16, 24, 40), 0.005
    values = NOISES[noise](np.random.default_rng(3), (TRIALS, looks[-1]))
    missed = np.zeros(TRIALS, dtype=bool)
    for look, rank in zip(looks, ranks(looks, alpha, len(looks)), strict=True):
        missed |= np.sort(values[:, :look], axis=1)[:, rank - 1] > 0
    assert missed.mean() <= alpha + 4 * standard_error(alpha)
    assert missed.mean() >= 0.0045 - 4 * standard_error(alpha)  # what is allotted is used
