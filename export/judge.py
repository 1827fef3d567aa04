"""Loss of an exported form against PyTorch in points: of a score on labelled inputs, or of the agreement of outputs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from kdnas.errors import UsageError
from kdnas.export.engines import Forward
from kdnas.export.labelled import Labelled
from kdnas.export.parity import is_number
from kdnas.export.scores import METRICS, scores
from kdnas.text.padding import pad

# Agreement measures of `kdnas.export.parity.compare` (the first present one counts), and the names of their losses.
KEPT = {"labels_equal": "labels changed", "correlation": "correlation", "cosine_mean": "mean cosine"}


@dataclass
class Candidate:
    """A form during the export, with the interface of a session (`kdnas.export.spans.Runs`)."""

    forward: Forward
    task: str
    tokenizer: Any
    pad_id: int
    max_seq_len: int
    streams: int = 1

    def require_task(self, *tasks: str) -> None:
        """Raise UsageError unless the model's task is one of `tasks`."""
        if self.task not in tasks:
            raise UsageError(f"this is a model for {self.task}; {' or '.join(tasks)} is needed")

    def pad(self, rows: Sequence[Sequence[int] | np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Ids and mask (B, T) of rows of token ids."""
        return pad(rows, self.pad_id, self.max_seq_len)

    def run(
        self, input_ids: np.ndarray, attention_mask: np.ndarray, token_type_ids: np.ndarray | None = None
    ) -> np.ndarray:
        """The graph's outputs."""
        return self.forward(input_ids, attention_mask, token_type_ids)


@dataclass(frozen=True)
class Judge:
    """Measures the loss of a form in points.

    Args:
        task: task of the model.
        score: computes the points of a form in each language; if None, the loss is the change of outputs on held-out sentences.
        before: points of PyTorch in each language.
    """

    task: str
    score: Callable[[Forward], dict[str, float]] | None = None
    before: dict[str, float] = field(default_factory=dict)

    @classmethod
    def by_labels(cls, labelled: Labelled, names: Sequence[str], trained: Candidate) -> "Judge":
        """A judge by scores on labelled inputs; `trained` is the PyTorch model, `names` are its class names."""

        def score(forward: Forward) -> dict[str, float]:
            return scores(trained.task, replace(trained, forward=forward), names, labelled)

        return cls(trained.task, score, score(trained.forward))

    def loss(self, run: Forward, found: dict[str, float]) -> dict[str, Any]:
        """`loss_points`, and the metric that they are points of.

        Args:
            run: the form.
            found: result of `kdnas.export.parity.compare` for the form.

        Returns:
            With labelled inputs: the loss in the language that loses most (`kdnas.export.scores`), and the loss in each
            language. Without them: the fraction of changed labels or answers, an upper bound of the loss in accuracy; for
            embeddings one minus the mean cosine, for numbers one minus the correlation. All times 100.
        """
        if self.score is None:
            figure = next(name for name in KEPT if name in found)
            kept = found[figure]
            return {"loss_points": 100 * (1 - kept) if np.isfinite(kept) else 100.0, "loss_of": KEPT[figure]}
        after = self.score(run)
        lost = {language: points - after[language] for language, points in self.before.items()}
        named = {"loss_by_language": lost} if set(lost) != {""} else {}
        return {"loss_points": max(lost.values()), "loss_of": METRICS[self.task], **named}


def answers_kept(task: str, expected: np.ndarray, got: np.ndarray) -> float:
    """Agreement of two outputs for one row: cosine of all states, fraction of equal labels, or closeness of a number.

    Args:
        task: task of the model.
        expected: reference outputs, stacked along a new last axis: states (1, T, D, 1), logits of a text (1, C, 1) or of tokens
            (1, T, C, 1), a number (1, 1, 1), or the logits of an answer's first and last token (1, T, 2).
        got: outputs of the form, with the same shape.
    """
    if task == "feature-extraction":
        left, right = expected.ravel(), got.ravel()
        return float(left @ right / (np.linalg.norm(left) * np.linalg.norm(right)))
    if is_number(task, expected):
        return float(1 - abs(got - expected).item() / max(1.0, abs(expected).item()))
    axis = 1 if task == "question-answering" else -2
    return float((expected.argmax(axis) == got.argmax(axis)).mean())
