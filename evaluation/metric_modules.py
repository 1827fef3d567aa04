"""The suites' metrics as modules of Hugging Face's `evaluate`, based on scikit-learn, scipy and seqeval, without downloads.

`kdnas suites` scores with `metric_of(task).compute(predictions=..., references=...)`. Other code that uses `evaluate` can combine
these metrics or pass them to a trainer.
"""

from typing import Any

import datasets
import evaluate
import numpy as np

from kdnas.evaluation.metrics import classification_scores, correlations
from kdnas.evaluation.tasks import Kind, Split, Task
from kdnas.export.scores import answer_scores, entity_scores

WHOLE, NUMBER, TEXT = datasets.Value("int64"), datasets.Value("float64"), datasets.Value("string")


class TaskMetric(evaluate.Metric):
    """A metric for a task, with its class names and positive class; it keeps its data in memory.

    Args:
        task: the task to score.
    """

    predictions: Any
    references: Any

    def __init__(self, task: Task) -> None:
        self.task = task
        super().__init__(config_name=task.kind.value, keep_in_memory=True)

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({"predictions": self.predictions, "references": self.references})
        return evaluate.MetricInfo(description=str(self.__doc__), citation="", features=features)


class Classes(TaskMetric):
    """Probabilities (N, C) against class numbers (N,): what `kdnas.evaluation.metrics.classification_scores` gives."""

    predictions, references = datasets.Sequence(NUMBER), WHOLE

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        return classification_scores(np.asarray(references), np.asarray(predictions), self.task.positive)


class Numbers(TaskMetric):
    """Numbers (N,) against numbers (N,): pearson, spearman, and their mean pearson_spearman, as for STS-B."""

    predictions, references = NUMBER, NUMBER

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        return correlations(np.asarray(references), np.asarray(predictions))


class Words(TaskMetric):
    """A class, or none, for each word of N texts: entity_f1, entity_precision and entity_recall, as seqeval counts them."""

    predictions, references = datasets.Sequence(WHOLE), datasets.Sequence(WHOLE)

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        return entity_scores(references, predictions, self.task.labels)


class Spans(TaskMetric):
    """An answer to each of N questions against the right ones: exact_match and answer_f1, as SQuAD counts them."""

    predictions, references = TEXT, datasets.Sequence(TEXT)

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        return answer_scores(references, predictions)


METRICS = {Kind.CLASSES: Classes, Kind.SCORE: Numbers, Kind.WORDS: Words, Kind.SPANS: Spans}


def metric_of(task: Task) -> TaskMetric:
    """The metric of a task's kind; all its scores go from 0 (or -1) to 1."""
    return METRICS[task.kind](task)


def scores_of(task: Task, split: Split, predicted: Any) -> dict[str, float]:
    """Scores of a model on a split of a task.

    Args:
        task: its kind, class names and positive class.
        split: N rows.
        predicted: what `kdnas.evaluation.kinds.predict` gives for them.
    """
    truth = [answers.texts for answers in split.labels] if task.kind is Kind.SPANS else split.labels
    return dict(metric_of(task).compute(predictions=predicted, references=truth))
