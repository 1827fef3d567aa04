"""Rankings of short distillations: hand-computed tau, the best third, sufficient budgets, and the noise of seeds."""

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from kdnas.evaluation.rankings import (
    LOSS,
    best_third,
    rankings,
    read_table,
    recompute,
    seed_noise,
    tau_with_interval,
)

LONG = np.arange(9.0)
RESULTS = Path(__file__).resolve().parents[2] / "results" / "search"


def test_tau_equals_the_hand_computed_value() -> None:
    one, other = np.array([1.0, 2, 3, 4]), np.array([1.0, 3, 2, 4])  # 5 of 6 pairs agree
    tau, low, high = tau_with_interval(one, other, seed=0)
    assert tau == pytest.approx(4 / 6)
    assert low < tau <= high <= 1
    assert tau_with_interval(one, other, seed=0) == (tau, low, high)
    assert tau_with_interval(one, np.ones(4), seed=0) == (0, 0, 0)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=30), st.integers(0, 99))
def test_tau_and_its_interval_equal_those_of_scipy(pairs: list[tuple[int, int]], seed: int) -> None:
    one, other = np.array(pairs, dtype=float).T
    drawn = np.random.default_rng(seed).integers(0, len(one), (30, len(one)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kdnas.evaluation.rankings.DRAWS", 30)
        found = tau_with_interval(one, other, seed)
    taus = np.nan_to_num([kendalltau(one[rows], other[rows]).statistic for rows in [np.arange(len(one)), *drawn]])
    assert found == pytest.approx((taus[0], *np.percentile(taus[1:], (2.5, 97.5))), abs=1e-9)


def test_the_best_third_is_ranked_by_itself() -> None:
    assert best_third(np.array([5.0, 1, 4, 2, 3, 6, 7])).tolist() == [1, 3, 4]
    reversed_best = np.array([2.0, 1, 0, 3, 4, 5, 6, 7, 8])  # all but the best three are in order
    [row] = rankings({100: reversed_best}, {LOSS: LONG}, 0.8, 0)["taus"]
    assert row["tau"] == pytest.approx((33 - 3) / 36)
    assert row["best_third_tau"] == pytest.approx(-1)
    assert row["best_third_low"] <= row["best_third_tau"] <= row["best_third_high"]


def test_a_budget_is_sufficient_by_the_lower_end_of_its_interval() -> None:
    nearly = np.array([0.0, 2, 1, 3, 5, 4, 6, 8, 7])  # tau 30 / 36 = 0.83
    found = rankings({50: nearly, 100: LONG}, {LOSS: LONG}, 0.8, 0)
    rows = {row["tokens"]: row for row in found["taus"]}
    assert rows[50]["tau"] > 0.8 > rows[50]["low"]
    assert found["cheapest_tokens"] == 100
    assert found["best_third"] == 3
    assert rankings({50: nearly}, {LOSS: LONG}, 0.8, 0)["cheapest_tokens"] is None


def test_noise_of_seeds_is_pooled_over_architectures() -> None:
    found = seed_noise([{"a": [0.5, 0.7], "b": [0.5]}, {"a": [0.4, 0.4], "b": [0.6]}])
    assert found == {"a": pytest.approx((0.02 / 2) ** 0.5), "b": "one seed"}
    assert seed_noise([]) == {}


def test_the_committed_taus_are_those_of_the_committed_table(tmp_path: Path) -> None:
    short, targets = read_table(RESULTS / "fidelity.csv")
    assert list(short) == [8453, 16381, 24541, 32601, 40597, 48017]
    assert list(targets) == [LOSS, "glue/stsb", "conll/2003"]
    (tmp_path / "fidelity.csv").write_bytes((RESULTS / "fidelity.csv").read_bytes())
    found = recompute(tmp_path)
    with (tmp_path / "fidelity-tau.csv").open() as made, (RESULTS / "fidelity-tau.csv").open() as committed:
        for one, other in zip(csv.DictReader(made), csv.DictReader(committed), strict=True):
            assert one["against"] == other["against"]
            for name in ("tokens", "tau", "low", "high", "best_third_tau", "best_third_low", "best_third_high"):
                assert float(one[name]) == pytest.approx(float(other[name]), abs=2e-4)
    assert found["cheapest_tokens"] is None
