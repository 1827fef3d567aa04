"""The metrics as modules of `evaluate`, against hand-computed values, without a network."""

import evaluate
import numpy as np
import pytest

from kdnas.evaluation.kinds import CLASSES, SCORE, SPANS, WORDS, TaskKind
from kdnas.evaluation.metric_modules import TaskMetric, scores_of
from kdnas.evaluation.rows import Answers, Split
from kdnas.evaluation.tasks import Task


def task_of(kind: TaskKind, labels: list[str], truth: list[object], positive: int | None = None) -> Task:
    split = Split(["text"] * len(truth), list(truth))
    return Task("x/y", labels, split, split, split, kind=kind, metric="", positive=positive)


def test_scores_of_classes() -> None:
    # truth 1 1 0 0, predicted 1 0 0 1: one of each outcome; half of the negatives are predicted positive.
    task = task_of(CLASSES, ["no", "yes"], [1, 1, 0, 0], positive=1)
    found = scores_of(task, task.test, np.array([[0.2, 0.8], [0.7, 0.3], [0.9, 0.1], [0.4, 0.6]], dtype=np.float32))
    assert (found["accuracy"], found["binary_f1"], found["false_positive_rate"]) == (0.5, 0.5, 0.5)
    assert found["matthews"] == 0


def test_scores_of_numbers() -> None:
    task = task_of(SCORE, ["score"], [1.0, 2.0, 3.0])
    found = scores_of(task, task.test, np.array([1.0, 2.0, 9.0], dtype=np.float32))
    assert found["spearman"] == pytest.approx(1)
    assert found["pearson"] == pytest.approx(
        8 / (38 * 2) ** 0.5
    )  # products of deviations 3 + 0 + 5, squares 9 + 4 + 25 and 1 + 0 + 1
    assert found["pearson_spearman"] == pytest.approx((found["pearson"] + 1) / 2)


def test_scores_of_words() -> None:
    # One of two entities is found whole; the other lacks its end, so its prediction is wrong too.
    task = task_of(WORDS, ["O", "B-PER", "I-PER"], [[1, 2, 0], [0, 1, 2]])
    found = scores_of(task, task.test, [[1, 2, 0], [0, 1, None]])
    assert (found["entity_f1"], found["entity_precision"], found["entity_recall"]) == (0.5, 0.5, 0.5)


def test_scores_of_spans() -> None:
    # "the Eiffel Tower!" normalises to the first answer; "Paris" is one of three words: precision 1, recall 1/3.
    answers = [Answers(("Eiffel Tower", "tower"), 0), Answers(("in Paris now",), 0)]
    task = task_of(SPANS, [], answers)
    found = scores_of(task, task.test, ["the Eiffel Tower!", "Paris"])
    assert found["exact_match"] == 0.5
    assert found["answer_f1"] == pytest.approx((1 + 2 * 1 * (1 / 3) / (1 + 1 / 3)) / 2)


def test_task_metrics_support_the_interface_of_evaluate() -> None:
    metric = TaskMetric(task_of(CLASSES, ["no", "yes"], [1, 0], positive=1))
    assert isinstance(metric, evaluate.Metric)
    for row, label in (([0.1, 0.9], 1), ([0.8, 0.2], 0), ([0.3, 0.7], 0)):
        metric.add(prediction=row, reference=label)
    assert metric.compute()["accuracy"] == pytest.approx(2 / 3)
