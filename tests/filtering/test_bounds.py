"""Bounds of the gate: values worked by hand, and properties."""

import math
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdnas.filtering.audit import bounds_of, is_beyond
from kdnas.filtering.bounds import clopper_pearson, missed_bounds, positives_needed, threshold_rank


def at_most(count: int, trials: int, rate: float) -> float:
    """P(X <= count) of a binomial variable, as a plain sum."""
    return sum(comb(trials, one) * rate**one * (1 - rate) ** (trials - one) for one in range(count + 1))


def test_the_numbers_of_positives_are_those_of_tolerance_limits() -> None:
    """0.99 ** 299 = 0.0495; Wilks' table for 99 % and 95 % confidence has 473 and 628 next."""
    assert positives_needed(0.01, 0.95) == 299
    assert positives_needed(0.05, 0.95) == 59
    assert positives_needed(0.1, 0.9) == 22
    for count, rank in ((298, 0), (299, 1), (472, 1), (473, 2), (627, 2), (628, 3)):
        assert threshold_rank(count, 0.01, 0.95) == rank


def test_clopper_pearson_has_the_values_of_tables() -> None:
    assert clopper_pearson(0, 299, 0.95)[1] == pytest.approx(1 - 0.05 ** (1 / 299))
    assert clopper_pearson(1, 10, 0.95) == pytest.approx((1 - 0.95**0.1, 0.3942), abs=5e-5)
    assert clopper_pearson(10, 10, 0.95) == pytest.approx((0.05**0.1, 1.0))
    assert clopper_pearson(0, 0, 0.95) == (0.0, 1.0)


def test_the_bound_of_missed_sentences() -> None:
    """1000 passed, 100 audited, none positive: at most 2.95 % of 1000 are, beside 70 found ones."""
    rate = 1 - 0.05**0.01
    assert missed_bounds(1000, 100, 0, 70, 0.95) == pytest.approx((0.0, 1000 * rate / (1000 * rate + 70)))
    assert missed_bounds(0, 0, 0, 70, 0.95) == (0.0, 0.0)
    assert missed_bounds(30, 0, 0, 70, 0.95) == (0.0, 0.3)  # nothing is known about those that passed
    assert bounds_of([1000, 100, 0, 70], 0.95)["missed_at_most"] == 0.296575  # 29.513 of 99.513


def test_a_unit_is_beyond_the_bound_if_its_audit_shows_it() -> None:
    """1 of 50 is at least 0.1 % of 10,000 = 10 sentences, and 10 of 210 are more than 1 %, but not more than 5 %."""
    counts = {"en": [6000, 20, 1, 150], "de": [4000, 30, 0, 50]}
    assert is_beyond(counts, 0.01, 0.95)
    assert not is_beyond(counts, 0.05, 0.95)
    assert not is_beyond({"en": [10_000, 50, 0, 200]}, 0.01, 0.95)
    assert not is_beyond({}, 0.01, 0.95)


@given(st.integers(1, 300), st.floats(0.005, 0.5), st.floats(0.5, 0.99))
def test_the_rank_is_the_largest_that_holds(count: int, miss: float, confidence: float) -> None:
    rank = threshold_rank(count, miss, confidence)
    if rank:
        assert at_most(rank - 1, count, miss) <= 1 - confidence + 1e-9
    if rank < count:
        assert at_most(rank, count, miss) > 1 - confidence - 1e-9
    needed = positives_needed(miss, confidence)
    assert threshold_rank(needed, miss, confidence) >= 1
    assert threshold_rank(needed - 1, miss, confidence) == 0


@given(st.integers(0, 60), st.integers(0, 60), st.floats(0.5, 0.99))
def test_clopper_pearson_inverts_the_binomial(found: int, more: int, confidence: float) -> None:
    trials = found + more
    lower, upper = clopper_pearson(found, trials, confidence)
    assert 0 <= lower <= upper <= 1
    if found < trials:
        assert at_most(found, trials, upper) == pytest.approx(1 - confidence, abs=1e-6)
    if found:
        assert 1 - at_most(found - 1, trials, lower) == pytest.approx(1 - confidence, abs=1e-6)


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(0.1, 0.9), (0.05, 0.95)]), st.integers(1, 4))
def test_thresholds_hold_as_often_as_they_say(seed: int, bound: tuple[float, float], times: int) -> None:
    """Of 2000 thresholds from samples of equal scores in 1000 steps, no more than the stated part misses too many."""
    miss, confidence = bound
    count = times * positives_needed(miss, confidence)
    rank = threshold_rank(count, miss, confidence)
    draws = np.sort(np.random.default_rng(seed).integers(0, 1000, (2000, count)), axis=1)
    missed = draws[:, rank - 1] / 1000  # the fraction of scores below the threshold
    wrong = int((missed > miss).sum())
    assert wrong <= 2000 * (1 - confidence) + 5 * math.sqrt(2000 * (1 - confidence))
