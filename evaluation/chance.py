"""The score of a model that has learnt nothing, and how surely a score is above it."""

from collections import Counter
from collections.abc import Mapping
from math import sqrt
from typing import Any

import numpy as np

from kdnas.evaluation.averages import headline, scored
from kdnas.evaluation.rows import Answers
from kdnas.evaluation.tasks import Task

FRACTIONS_OF_ROWS = ("accuracy", "exact_match")  # metrics with a binomial standard error


def chance(task: Task) -> float | None:
    """Headline score of always predicting the most frequent test label; None if the kind of the labels is unknown.

    Args:
        task: task with its test rows.
    """
    predicted = constant_prediction(task)
    return None if predicted is None else headline(scored(task, task.test, predicted), task.metric)


def chance_by_language(task: Task) -> dict[str, float]:
    """The main metric in each language for the prediction of `chance`; empty if the kind of the labels is unknown.

    The most frequent label is that of all languages together, so that the mean over the languages is `chance`.
    """
    predicted = constant_prediction(task)
    if predicted is None:
        return {}
    found = scored(task, task.test, predicted)["by_language"]
    return {language: scores[task.metric] for language, scores in found.items()}


def constant_prediction(task: Task) -> Any:
    """The same prediction for all test rows: the most frequent class, tag or answer, or the mean; None if the kind is unknown."""
    labels = task.test.labels
    if task.kind.labels_are_classes:
        return np.eye(len(task.labels))[[_commonest(labels)] * len(labels)]
    if task.kind.splits_words:
        tag = _commonest([tag for row in labels for tag in row])
        return [[tag] * len(row) for row in labels]
    if all(isinstance(label, Answers) for label in labels):
        return [_commonest([label.texts[0] for label in labels])] * len(labels)
    if all(isinstance(label, int | float) for label in labels):
        return np.full(len(labels), np.mean(labels))
    return None


def _commonest(values: list[Any]) -> Any:
    """The most frequent value, of several the smallest, so that the order of the rows does not matter."""
    counts = Counter(values)
    most = max(counts.values())
    return min(value for value, count in counts.items() if count == most)


def corrected_retention(teacher: float, student: float, chance: float) -> float | None:
    """Retention of what lies above chance: (student - chance) / (teacher - chance); None if the teacher is not above chance."""
    return (student - chance) / (teacher - chance) if teacher > chance else None


def standard_error(task: Task, found: Mapping[str, Any]) -> float | None:
    """Binomial standard error of the headline score over test rows; None for metrics that are no fractions of rows.

    Args:
        task: the task.
        found: what `kdnas.evaluation.averages.scored` returns for its test rows.
    """
    metric = task.metric
    if metric not in FRACTIONS_OF_ROWS:
        return None
    if not found["language_means"]:
        return sqrt(_variance(found["scores"][metric], len(task.test)))
    rows = Counter(task.test.languages)
    variances = [_variance(scores[metric], rows[language]) for language, scores in found["by_language"].items()]
    return sqrt(sum(variances)) / len(variances)


def _variance(fraction: float, rows: int) -> float:
    return fraction * (1 - fraction) / rows
