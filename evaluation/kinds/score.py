"""A number for a text or a pair of texts."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kdnas.evaluation.kinds.base import TaskKind
from kdnas.export.session import BATCH_TOKENS
from kdnas.export.spans import Runs, text_logits


class Score(TaskKind):
    """Labels and predictions (N,) are numbers."""

    name = "score"
    head = "AutoModelForSequenceClassification"
    export_task = "text-classification"
    score_names = ("pearson", "spearman")

    def read_label(
        self, value: Any, labels: Sequence[str], numbers: Mapping[str, int], otherwise: int | None
    ) -> float | None:
        return None if float(value) < 0 else float(value)

    def target(self, encoding: Any, label: Any) -> np.ndarray:
        return np.asarray(label, dtype=np.float32)

    def head_settings(self, labels: Sequence[str]) -> dict[str, Any]:
        return {"num_labels": len(labels), "problem_type": "regression"}

    def loss(self, output: Any, targets: Any) -> Any:
        """Squared error of outputs (B, 1) and numbers (B,)."""
        import torch

        return torch.nn.functional.mse_loss(output.logits.float()[:, 0], targets)

    def predict(self, runs: Runs, texts: Sequence[Any], batch_tokens: int = BATCH_TOKENS) -> np.ndarray:
        return text_logits(runs, texts, batch_tokens)[:, 0]

    def features(self) -> dict[str, Any]:
        from datasets import Value

        return {"predictions": Value("float64"), "references": Value("float64")}

    def scores(self, truth: Any, predicted: Any, labels: Sequence[str], positive: int | None) -> dict[str, float]:
        """pearson, spearman, and their mean pearson_spearman, as for STS-B."""
        from kdnas.evaluation.metrics import correlations

        return correlations(np.asarray(truth), np.asarray(predicted))
