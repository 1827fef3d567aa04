"""The suites' metrics as modules of Hugging Face's `evaluate`, based on scikit-learn, scipy and seqeval, without downloads.

`kdnas suites` scores with `TaskMetric(task).compute(predictions=..., references=...)`. Other code that uses `evaluate` can
combine these metrics or pass them to a trainer.
"""

from typing import Any

import datasets
import evaluate

from kdnas.evaluation.rows import Split
from kdnas.evaluation.tasks import Task


class TaskMetric(evaluate.Metric):
    """The metric of a task's kind, with the task's class names and positive class; it keeps its data in memory.

    All scores go from 0 (or -1) to 1.

    Args:
        task: the task to score.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        super().__init__(config_name=task.kind.name, keep_in_memory=True)

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features(self.task.kind.features())
        return evaluate.MetricInfo(description=str(self.task.kind.__doc__), citation="", features=features)

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        return self.task.kind.scores(references, predictions, self.task.labels, self.task.positive)


def scores_of(task: Task, split: Split, predicted: Any) -> dict[str, float]:
    """Scores of a model on a split of a task.

    Args:
        task: its kind, class names and positive class.
        split: N rows.
        predicted: what the kind's `predict` returns for them.
    """
    return dict(TaskMetric(task).compute(predictions=predicted, references=task.kind.truth(split.labels)))
