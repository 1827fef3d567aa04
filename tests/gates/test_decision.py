"""Hand-computed decisions, and their error rates on simulated hosts."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdnas.errors import UsageError
from kdnas.gates.decision import Outcome, Rule, decide, judge, pairs_of, side_of


def test_sides_alternate() -> None:
    assert "".join(side_of(number) for number in range(10)) == "ABBAABBAAB"


def test_pairs_match_hand_computed_values() -> None:
    # A 1, B 2 | B 4, A 2 | A 2, B 8: the head is 2, 2 and 4 times as slow; B rose by 2 and A not at all.
    ratios, same = pairs_of([1, 2, 4, 2, 2, 8])
    assert np.exp(ratios) == pytest.approx([2, 2, 4])
    assert np.exp(same) == pytest.approx([2, 1])
    assert len(pairs_of([1, 2, 4])[0]) == 1  # half a pair is dropped
    with pytest.raises(ValueError, match="not above 0"):
        pairs_of([1, 0, 1, 1])


@given(st.lists(st.floats(0.5, 2), min_size=4, max_size=40))
def test_shared_drift_cancels(drift: list[float]) -> None:
    values = np.repeat(drift, 2)  # both processes of a pair have the same drift
    ratios, _ = pairs_of(values)
    assert ratios == pytest.approx(np.zeros(len(drift)))


def host(slowdown: float, noise: float, drift: float, rng: np.random.Generator, count: int) -> np.ndarray:
    """Seconds of processes on a drifting host; one process in twenty is an outlier."""
    level = np.cumsum(rng.normal(0, drift, count))
    late = np.where(rng.random(count) < 0.05, rng.uniform(0, 0.5, count), 0)
    slow = np.array([1 + slowdown if side_of(number) == "B" else 1.0 for number in range(count)])
    return slow * np.exp(level + rng.normal(0, noise, count) + late)


def outcomes(slowdown: float, noise: float, drift: float, trials: int = 100) -> Counter[str]:
    rng, rule, found = np.random.default_rng(1), Rule(), Counter[str]()
    for _ in range(trials):
        values = host(slowdown, noise, drift, rng, 2 * rule.looks[-1])
        found[judge(values.tolist(), rule, 8).outcome] += 1
    return found


@pytest.mark.slow
def test_a_ten_percent_slowdown_is_detected_without_false_alarms() -> None:
    assert outcomes(0.10, 0.01, 0.005)[Outcome.REGRESSION] >= 95
    assert outcomes(0.0, 0.01, 0.005) == {Outcome.OK: 100}
    for noise in (0.02, 0.04):
        assert outcomes(0.0, noise, noise / 2)[Outcome.REGRESSION] == 0
        assert outcomes(0.03, noise, noise / 2)[Outcome.REGRESSION] == 0


@pytest.mark.slow
def test_noise_does_not_hide_a_slowdown() -> None:
    for noise in (0.02, 0.03, 0.04):
        found = outcomes(0.10, noise, noise / 2)
        assert found[Outcome.OK] == 0, found


def test_interrupted_early_gives_no_verdict() -> None:
    values = [1.0 if side_of(number) == "A" else 1.5 for number in range(2 * Rule().looks[0])]
    assert decide(values, Rule()).outcome is Outcome.REGRESSION
    assert decide(values[:-2], Rule()).outcome is Outcome.INCONCLUSIVE


def slowed(factors: list[float]) -> list[float]:
    """Results of processes with these head over base ratios; the base takes 1 s."""
    return [1.0 if side_of(number) == "A" else factors[number // 2] for number in range(2 * len(factors))]


def test_decisions_match_hand_counted_pairs() -> None:
    # Of 16 pairs, 4 benchmarks may have 3 on the wrong side of 5 %: the interval runs from the 4th value to the 13th.
    three, four = 3 * [0.99] + 13 * [1.3], 4 * [0.99] + 12 * [1.3]
    rule = Rule(most=5.0, looks=(16,))
    assert decide(slowed(sorted(three, reverse=True)), rule, 4).outcome is Outcome.REGRESSION
    assert decide(slowed(sorted(four, reverse=True)), rule, 4).outcome is Outcome.INCONCLUSIVE
    assert decide(slowed(3 * [1.06] + 13 * [1.04]), rule, 4).outcome is Outcome.OK
    assert decide(slowed(4 * [1.06] + 12 * [1.04]), rule, 4).outcome is Outcome.INCONCLUSIVE


def test_too_few_pairs_for_the_allotted_error_decide_nothing() -> None:
    values = slowed(10 * [1.5])
    assert decide(values, Rule(), 12).outcome is Outcome.REGRESSION  # 0.5 ** 10 <= 0.05 / 4 / 12
    verdict = decide(values, Rule(), 13)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.ratio == (0.0, pytest.approx(1.5), float("inf"))


def test_out_of_time_takes_the_next_look_early() -> None:
    assert decide(slowed(12 * [1.5]), Rule(), 12).ratio[0] == pytest.approx(1.5)
    # One benchmark: rank 2 after 10 pairs, and 12 pairs are the second look, with rank 3.
    mixed = slowed(2 * [1.0] + 10 * [1.5])
    assert decide(mixed, Rule()).ratio[0] == pytest.approx(1.5)


def test_a_host_with_unstable_timings_is_unfit() -> None:
    rng = np.random.default_rng(0)
    verdict = decide(np.exp(rng.normal(0, 0.5, 20)).tolist(), Rule())
    assert verdict.outcome is Outcome.UNFIT
    assert verdict.threshold > Rule().most


def test_few_pairs_decide_nothing() -> None:
    with pytest.raises(ValueError, match="fewer than two pairs"):
        decide([1, 1], Rule())


@pytest.mark.parametrize(
    "wrong",
    [{"least": 0.0}, {"least": 0.2, "most": 0.1}, {"alpha": 0.5}, {"looks": ()}, {"looks": (8, 8)}, {"looks": (6, 9)}],
)
def test_invalid_rules_are_rejected(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Rule(**wrong)  # type: ignore[arg-type]
