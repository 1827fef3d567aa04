"""Loss of an exported form against PyTorch in points: of a score on labelled inputs, or of the agreement of outputs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from kdnas.errors import UsageError
from kdnas.export.engines import Forward
from kdnas.export.labelled import Labelled
from kdnas.export.parity import is_number
from kdnas.export.scores import METRICS, answers_of, points
from kdnas.text.padding import pad

# Agreement measures of `kdnas.export.parity.compare` (the first present one counts), and the names of their losses.
LOST = {"labels_equal": "labels changed", "correlation": "correlation", "cosine_mean": "mean cosine"}


@dataclass
class Candidate:
    """A form during the export, with the interface of a session (`kdnas.export.spans.Runs`)."""

    forward: Forward
    task: str
    tokenizer: Any
    pad_id: int
    max_seq_len: int
    streams: int = 1
    multi_label: bool = False

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
    """Measures the loss of a form in points, on dev rows, which choose an int8 recipe, and on test rows.

    The best of several recipes on some rows looks better there than on others, so the rows that choose do not report.

    Args:
        task: task of the model.
        score: computes the points of a form on the dev and on the test rows in each language; if None, the loss is the change
            of outputs on held-out sentences.
        before: points of PyTorch on the dev and on the test rows in each language.
    """

    task: str
    score: Callable[[Forward], tuple[dict[str, float], dict[str, float]]] | None = None
    before: tuple[dict[str, float], dict[str, float]] = field(default_factory=lambda: ({}, {}))

    @classmethod
    def by_labels(cls, labelled: Labelled, names: Sequence[str], trained: Candidate) -> "Judge":
        """A judge by scores on labelled inputs; `trained` is the PyTorch model, `names` are its class names."""

        halves = [(rows, labelled.rows(rows)) for rows in labelled.halves()]

        def score(forward: Forward) -> tuple[dict[str, float], dict[str, float]]:
            answers = answers_of(trained.task, replace(trained, forward=forward), labelled.inputs, trained.multi_label)
            dev, test = (points(trained.task, [answers[row] for row in rows], names, half) for rows, half in halves)
            return dev, test

        return cls(trained.task, score, score(trained.forward))

    def loss(self, run: Forward, found: dict[str, float]) -> dict[str, Any]:
        """`loss_points` on the test rows, `dev_loss_points` on the dev rows, and the metric that they are points of.

        Args:
            run: the form.
            found: result of `kdnas.export.parity.compare` for the form.

        Returns:
            With labelled inputs: the loss in the language that loses most (`kdnas.export.scores`), and the loss in each
            language. Without them: the fraction of changed labels or answers, an upper bound of the loss in accuracy; for
            embeddings one minus the mean cosine, for numbers one minus the correlation. All times 100.
        """
        if self.score is None:
            # A half of some hundred sentences is too coarse for a bound of one point, so all of them choose and report.
            figure = next(name for name in LOST if name in found)
            lost_points = 100 * (1 - found[figure]) if np.isfinite(found[figure]) else 100.0
            return {"loss_points": lost_points, "dev_loss_points": lost_points, "loss_of": LOST[figure]}
        dev_lost, lost = (
            {language: score - after[language] for language, score in before.items()}
            for before, after in zip(self.before, self.score(run), strict=True)
        )
        named = {"loss_by_language": lost} if set(lost) != {""} else {}
        # A language of one row has no dev row.
        worst = {"loss_points": max(lost.values()), "dev_loss_points": max(dev_lost.values(), default=0.0)}
        return {**worst, "loss_of": METRICS[self.task], **named}


def answers_kept(task: str, expected: np.ndarray, got: np.ndarray, multi_label: bool = False) -> float:
    """Agreement of two outputs for one row: cosine of all states, fraction of equal labels, or closeness of a number.

    Args:
        task: task of the model.
        expected: reference outputs, stacked along a new last axis: states (1, T, D, 1), logits of a text (1, C, 1) or of tokens
            (1, T, C, 1), a number (1, 1, 1), or the logits of an answer's first and last token (1, T, 2).
        got: outputs of the form, with the same shape.
        multi_label: the labels of a text are independent, and each counts.
    """
    if task == "feature-extraction":
        left, right = expected.ravel(), got.ravel()
        return float(left @ right / (np.linalg.norm(left) * np.linalg.norm(right)))
    if is_number(task, expected):
        return float(1 - abs(got - expected).item() / max(1.0, abs(expected).item()))
    if multi_label:
        return float(((expected > 0) == (got > 0)).mean())
    axis = 1 if task == "question-answering" else -2
    return float((expected.argmax(axis) == got.argmax(axis)).mean())
