"""What an exported form loses against PyTorch, in points: of macro-F1 on labelled texts, else by how its answers differ."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from export.engines import Engine
from export.labelled import Labelled
from export.session import token_budget_batches, token_ids
from kdnas.padding import pad

BATCH_TOKENS = 2048


@dataclass(frozen=True)
class Judge:
    """The points that a form loses.

    Args:
        task: of the model.
        labelled: texts that decide; without them the answers to held-out sentences do.
        rows: token ids of the labelled texts.
        logits: PyTorch's, (N, C).
        pad_id: of the model.
        max_seq_len: of the model.
    """

    task: str
    labelled: Labelled | None = None
    rows: tuple[list[int], ...] = ()
    logits: np.ndarray | None = None
    pad_id: int = 0
    max_seq_len: int = 0

    @classmethod
    def by_labels(cls, labelled: Labelled, model: Any, tokenizer: Any, pad_id: int, max_seq_len: int) -> "Judge":
        """A judge of text classifiers by what PyTorch's model scores on labelled texts."""
        import torch

        def run(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                answer = model(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask))
            return np.asarray(answer.logits.numpy())

        rows = tuple(token_ids(tokenizer, labelled.texts))
        logits = _logits(run, rows, pad_id, max_seq_len)
        return cls("text-classification", labelled, rows, logits, pad_id, max_seq_len)

    def loss(self, run: Engine, found: dict[str, float]) -> dict[str, Any]:
        """`loss_points`, and what they are points of.

        Args:
            run: the form.
            found: what `export.parity.compare` says of it.

        Returns:
            With labelled texts the macro-F1 that is lost, in hundredths, in the language that loses most, and each
            language's. Without them the share of changed labels or answers, which no accuracy can lose more than; for
            embeddings one minus the mean cosine. All times 100.
        """
        if self.labelled is None or self.logits is None:
            labels = self.task != "feature-extraction"
            kept = found["labels_equal" if labels else "cosine_mean"]
            return {
                "loss_points": 100 * (1 - kept) if np.isfinite(kept) else 100.0,
                "loss_of": "labels changed" if labels else "mean cosine",
            }
        logits = _logits(run, self.rows, self.pad_id, self.max_seq_len)
        truth, languages = np.asarray(self.labelled.labels), np.asarray(self.labelled.languages)
        lost = {}
        for language in sorted(set(self.labelled.languages)):
            rows = languages == language
            before, after = (_macro_f1(truth[rows], answers[rows].argmax(-1)) for answers in (self.logits, logits))
            lost[language] = 100 * (before - after)
        named = {"loss_by_language": lost} if set(lost) != {""} else {}
        return {"loss_points": max(lost.values()), "loss_of": "macro-F1", **named}


def _logits(run: Engine, rows: tuple[list[int], ...], pad_id: int, max_seq_len: int) -> np.ndarray:
    """Logits (N, C) in the order of the rows, in batches of like length."""
    answers: list[np.ndarray] = [np.empty(0)] * len(rows)
    for batch in token_budget_batches([len(row) for row in rows], BATCH_TOKENS):
        output = run(*pad([rows[place] for place in batch], pad_id, max_seq_len))
        for place, answer in zip(batch, output, strict=True):
            answers[place] = answer
    return np.stack(answers)


def _macro_f1(truth: np.ndarray, answers: np.ndarray) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(truth, answers, average="macro", zero_division=0))


def answers_kept(task: str, expected: np.ndarray, got: np.ndarray) -> float:
    """How much of the outputs for one row is kept: the cosine of all states, or the share of labels.

    Args:
        task: of the model.
        expected: the outputs along a new last axis: states (1, T, D, 1), logits of a text (1, C, 1) or of tokens (1, T, C, 1),
            or the logits of an answer's first and last token (1, T, 2).
        got: the same of another form.
    """
    if task == "feature-extraction":
        left, right = expected.ravel(), got.ravel()
        return float(left @ right / (np.linalg.norm(left) * np.linalg.norm(right)))
    axis = 1 if task == "question-answering" else -2
    return float((expected.argmax(axis) == got.argmax(axis)).mean())
