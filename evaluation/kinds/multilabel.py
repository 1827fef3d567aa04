"""Several independent labels of a text, each of which may be unknown."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from kdnas.evaluation.kinds.base import TaskKind, class_names
from kdnas.export.folder import MULTI_LABEL
from kdnas.export.outputs import sigmoid
from kdnas.export.session import BATCH_TOKENS
from kdnas.export.spans import Runs, text_logits

# 1, 0, a probability, or None for unknown, for each label.
Truth = tuple[float | None, ...]
UNKNOWN = -1.0  # an unknown label in arrays


class MultiLabel(TaskKind):
    """Labels are `Truth` tuples; predictions are sigmoid probabilities (N, C).

    Args:
        truth: gives the labels of a value of the label column, and raises KeyError for an unknown value; None reads mappings of
            names to 1 or 0, in which unknown labels are missing.
    """

    name = "multi-label"
    head = "AutoModelForSequenceClassification"
    export_task = "text-classification"
    score_names = ("macro_f1", "binary_f1", "average_precision", "false_positive_rate")

    def __init__(self, truth: Callable[[str], Truth] | None = None) -> None:
        self.truth_of = truth

    def read_label(self, value: Any, labels: Sequence[str], numbers: Mapping[str, int], otherwise: int | None) -> Truth:
        if self.truth_of is not None:
            try:
                return self.truth_of(str(value))
            except KeyError as error:
                raise ValueError(f"is {value!r:.60}, which the table of this set does not have") from error
        known = value if isinstance(value, Mapping) else {}
        if not known or set(known) - set(labels) or not all(one in (0, 1) for one in known.values()):
            raise ValueError(f"is {value!r:.60}; allowed are 0 and 1 for some of {', '.join(labels)}")
        return tuple(float(known[name]) if name in known else None for name in labels)

    def target(self, encoding: Any, label: Truth) -> np.ndarray:
        """(C,) float32; `UNKNOWN` for an unknown label."""
        return as_array([label])[0]

    def head_settings(self, labels: Sequence[str]) -> dict[str, Any]:
        return {**class_names(labels), "problem_type": MULTI_LABEL}

    def loss(self, output: Any, targets: Any) -> Any:
        """Binary cross-entropy of logits (B, C) and targets (B, C), as the mean over the known labels; 0 if none is known."""
        import torch

        known = targets >= 0
        logits, wanted = output.logits.float(), targets.clamp(min=0)
        each = torch.nn.functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        return (each * known).sum() / known.sum().clamp(min=1)

    def predict(self, runs: Runs, texts: Sequence[Any], batch_tokens: int = BATCH_TOKENS) -> np.ndarray:
        return sigmoid(text_logits(runs, texts, batch_tokens))

    def truth(self, labels: Sequence[Truth]) -> np.ndarray:
        """(N, C), `UNKNOWN` for unknown labels."""
        return as_array(labels)

    def features(self) -> dict[str, Any]:
        from datasets import Sequence as Many
        from datasets import Value

        return {"predictions": Many(Value("float64")), "references": Many(Value("float64"))}

    def scores(self, truth: Any, predicted: Any, labels: Sequence[str], positive: int | None) -> dict[str, float]:
        """What `kdnas.evaluation.metrics.multi_label_scores` returns."""
        from kdnas.evaluation.metrics import multi_label_scores

        return multi_label_scores(np.asarray(truth), np.asarray(predicted), labels)


def as_array(labels: Sequence[Truth]) -> np.ndarray:
    """Labels of N texts as (N, C) float32, `UNKNOWN` for unknown ones."""
    return np.asarray([[UNKNOWN if one is None else one for one in label] for label in labels], dtype=np.float32)
