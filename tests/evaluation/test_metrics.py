"""Metrics against hand-computed values and against brute force."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdnas.evaluation.metrics import (
    at_threshold,
    calibration_error,
    classification_scores,
    correlations,
    false_positive_rate,
    majority_macro_f1,
    neighbours,
    recall_at_k,
    retention,
    threshold_for_precision,
)


def one_hot(indices: list[int], classes: int) -> np.ndarray:
    return np.eye(classes)[indices]


def test_binary_scores_equal_hand_computed_values() -> None:
    # truth 1 1 1 0 0, predicted 1 1 0 1 0: 2 true positives, 1 false negative, 1 false positive, 1 true negative.
    truth = np.array([1, 1, 1, 0, 0])
    scores = classification_scores(truth, one_hot([1, 1, 0, 1, 0], 2), positive=1)
    assert scores["accuracy"] == pytest.approx(3 / 5)
    assert scores["binary_f1"] == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert scores["macro_f1"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert scores["false_positive_rate"] == pytest.approx(1 / 2)
    assert scores["matthews"] == pytest.approx((2 * 1 - 1 * 1) / (3 * 3 * 2 * 2) ** 0.5)


def test_average_precision_equals_the_hand_computed_value() -> None:
    # Ranked by probability: 1, 0, 1, 0. Precision at the two positives is 1 and 2/3, each with half of the recall.
    positive = np.array([0.9, 0.8, 0.7, 0.1])
    scores = classification_scores(np.array([1, 0, 1, 0]), np.stack([1 - positive, positive], 1), positive=1)
    assert scores["average_precision"] == pytest.approx((1 + 2 / 3) / 2)


def test_macro_f1_weighs_three_classes_equally() -> None:
    truth = np.array([0, 0, 0, 0, 1, 2])
    scores = classification_scores(truth, one_hot([0, 0, 0, 0, 1, 1], 3), positive=None)
    assert scores["macro_f1"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert set(scores) == {"accuracy", "macro_f1", "matthews", "calibration_error"}


def test_calibration_error_equals_hand_computed_values() -> None:
    # Bins of width 1/2: two predictions at 0.9, one of them right; two at 0.6, both right; all in the upper bin.
    probabilities = np.array([[0.9, 0.1], [0.1, 0.9], [0.6, 0.4], [0.4, 0.6]])
    truth = np.array([0, 0, 0, 1])
    assert calibration_error(truth, probabilities, bins=2) == pytest.approx(abs(3 / 4 - 3 / 4))
    # Bins of width 1/10 separate them: |1/2 - 0.9| and |1 - 0.6|, with half of the rows each.
    assert calibration_error(truth, probabilities, bins=10) == pytest.approx(0.4)


def test_the_threshold_reaches_the_precision() -> None:
    truth = np.array([True, False, True, True, False])
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.1])
    assert threshold_for_precision(truth, scores, 0.75) == pytest.approx(0.6)
    assert threshold_for_precision(truth, scores, 1.0) == pytest.approx(0.9)
    assert threshold_for_precision(np.array([False, True]), np.array([0.9, 0.1]), 0.9) is None
    assert at_threshold(truth, scores, 0.6) == pytest.approx(
        {"precision": 0.75, "recall": 1.0, "false_positive_rate": 0.5}
    )
    assert at_threshold(truth, scores, 2.0) == {"precision": 0, "recall": 0, "false_positive_rate": 0}


@pytest.mark.slow
@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=1, max_size=30), st.floats(0.01, 1))
def test_the_threshold_is_the_lowest_score_that_reaches_the_precision(
    rows: list[tuple[bool, float]], wanted: float
) -> None:
    truth, scores = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    threshold = threshold_for_precision(truth, scores, wanted)
    precisions = {score: at_threshold(truth, scores, score)["precision"] for score in scores.tolist()}
    if threshold is None:
        assert not truth.any() or max(precisions.values()) < wanted
    else:
        assert precisions[threshold] >= wanted
        assert all(precisions[score] < wanted for score in precisions if score < threshold)


def test_correlations_equal_hand_computed_values() -> None:
    # Deviations -1.5 -0.5 0.5 1.5 against -1 -2 0 3: Pearson 7 / sqrt(5 * 14); one pair of ranks is swapped: Spearman 0.8.
    found = correlations(np.array([1.0, 2, 3, 4]), np.array([1.0, 0, 2, 5]))
    assert found["pearson"] == pytest.approx(7 / (5 * 14) ** 0.5)
    assert found["spearman"] == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert found["pearson_spearman"] == pytest.approx((found["pearson"] + found["spearman"]) / 2)
    assert set(correlations(np.array([1.0, 2]), np.array([3.0, 3])).values()) == {0.0}


def test_false_positive_rate_without_negatives_is_zero() -> None:
    assert false_positive_rate(np.array([True, True]), np.array([True, False])) == 0.0


def test_majority_macro_f1_is_the_score_of_predicting_one_class() -> None:
    truth = [0, 1, 1, 1, 2]
    scores = classification_scores(np.array(truth), one_hot([1] * 5, 3), positive=None)
    assert majority_macro_f1(truth) == pytest.approx(scores["macro_f1"])


def test_retention_is_the_ratio_of_the_scores() -> None:
    assert retention(0.8, 0.6) == pytest.approx(0.75)
    assert retention(0.0, 0.6) is None


def brute_force_recall(teacher: np.ndarray, student: np.ndarray, k: int) -> float:
    fractions = []
    for row in range(len(teacher)):
        nearest = [
            sorted((other for other in range(len(space)) if other != row), key=lambda other: -space[row] @ space[other])
            for space in (teacher, student)
        ]
        fractions.append(len(set(nearest[0][:k]) & set(nearest[1][:k])) / k)
    return float(np.mean(fractions))


@given(st.integers(0, 1000), st.integers(12, 40), st.integers(1, 10))
def test_recall_equals_brute_force(seed: int, count: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    teacher, student = rng.normal(size=(count, 5)), rng.normal(size=(count, 3))
    assert recall_at_k(teacher, student, k).mean() == pytest.approx(brute_force_recall(teacher, student, k))
    assert recall_at_k(teacher, teacher, k).min() == 1.0


def test_neighbours_exclude_the_row_itself_in_all_blocks() -> None:
    rows = np.random.default_rng(0).normal(size=(50, 4))
    found = neighbours(rows, 7, block=16)
    assert all(row not in found[row] for row in range(50))
    assert np.array_equal(np.sort(found), np.sort(neighbours(rows, 7, block=50)))


def test_unrelated_spaces_agree_by_chance_only() -> None:
    rng = np.random.default_rng(0)
    assert recall_at_k(rng.normal(size=(400, 8)), rng.normal(size=(400, 8)), 10).mean() < 0.06
