"""The class of a text or a pair of texts."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kdnas.evaluation.kinds.base import TaskKind, class_names
from kdnas.export.outputs import softmax
from kdnas.export.session import BATCH_TOKENS
from kdnas.export.spans import Runs, text_logits


class Classes(TaskKind):
    """Labels are class numbers; predictions are probabilities (N, C)."""

    name = "classes"
    head = "AutoModelForSequenceClassification"
    export_task = "text-classification"
    score_names = (
        "macro_f1",
        "accuracy",
        "matthews",
        "binary_f1",
        "average_precision",
        "false_positive_rate",
        "calibration_error",
    )
    labels_are_classes = True

    def read_label(
        self, value: Any, labels: Sequence[str], numbers: Mapping[str, int], otherwise: int | None
    ) -> int | None:
        if numbers:
            number = numbers.get(str(value), otherwise)
        else:
            number = int(value) if str(value).lstrip("-").isdigit() else None
            if number == -1:
                return None
        if number is None or not 0 <= number < len(labels):
            allowed = ", ".join(numbers) or f"0 to {len(labels) - 1}"
            raise ValueError(f"is {value!r:.60}; allowed are {allowed}")
        return number

    def target(self, encoding: Any, label: Any) -> np.ndarray:
        return np.asarray(label, dtype=np.int64)

    def head_settings(self, labels: Sequence[str]) -> dict[str, Any]:
        return class_names(labels)

    def loss(self, output: Any, targets: Any) -> Any:
        """Cross-entropy of logits (B, C) and class numbers (B,)."""
        import torch

        return torch.nn.functional.cross_entropy(output.logits.float(), targets)

    def predict(self, runs: Runs, texts: Sequence[Any], batch_tokens: int = BATCH_TOKENS) -> np.ndarray:
        return softmax(text_logits(runs, texts, batch_tokens))

    def features(self) -> dict[str, Any]:
        from datasets import Sequence as Many
        from datasets import Value

        return {"predictions": Many(Value("float64")), "references": Value("int64")}

    def scores(self, truth: Any, predicted: Any, labels: Sequence[str], positive: int | None) -> dict[str, float]:
        """What `kdnas.evaluation.metrics.classification_scores` returns."""
        from kdnas.evaluation.metrics import classification_scores

        return classification_scores(np.asarray(truth), np.asarray(predicted), positive)
