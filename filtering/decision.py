"""From the scores of sentences to the decision about a document; the same for the model's scores and for recorded ones."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kdnas.filtering.options import DocumentScore

FIRST_SENTENCES = 16  # scored first; if one of them reaches a threshold, the rest of the document need not be scored
DIGITS = 6


@dataclass(frozen=True)
class Policy:
    """The rule that drops documents.

    Args:
        labels: labels that are scored.
        thresholds: threshold of each label.
        document_score: how the scores of sentences become the score of the document.
        sentence_threshold: for the document score `fraction`.
    """

    labels: tuple[str, ...]
    thresholds: tuple[float, ...]
    document_score: DocumentScore = "max"
    sentence_threshold: float = 0.5

    def reached(self, scores: np.ndarray) -> bool:
        """Whether one of the scores (L,) reaches its threshold."""
        return bool((scores >= np.asarray(self.thresholds)).any())

    def whole(self, scores: np.ndarray) -> np.ndarray:
        """Scores (L,) of a document from all its sentences' scores (S, L), where NaN counts as 0; 0 without sentences."""
        if not len(scores):
            return np.zeros(len(self.labels))
        scores = np.nan_to_num(scores)
        if self.document_score == "mean":
            return np.round(scores.mean(axis=0), DIGITS)
        if self.document_score == "fraction":
            return np.round((scores >= self.sentence_threshold).mean(axis=0), DIGITS)
        return np.asarray(scores.max(axis=0))

    @property
    def sentence_levels(self) -> np.ndarray:
        """(L,) score from which a sentence counts for its document."""
        if self.document_score == "fraction":
            return np.full(len(self.labels), self.sentence_threshold)
        return np.asarray(self.thresholds)

    def positive(self, scores: np.ndarray) -> np.ndarray:
        """(S,) whether one of each sentence's scores (S, L) reaches its level; NaN does not."""
        return np.asarray((scores >= self.sentence_levels).any(axis=1))

    def decide(self, scores: np.ndarray) -> np.ndarray:
        """Scores (L,) that decide about a document: of its first sentences if these reach a threshold, else of all."""
        if self.document_score == "max" and len(scores) > FIRST_SENTENCES:
            first = self.whole(scores[:FIRST_SENTENCES])
            if self.reached(first):
                return first
        return self.whole(scores)


@dataclass(frozen=True)
class Scored:
    """Sentences of one document and their scores.

    Args:
        spans: start and end of each sentence in code points.
        scores: (S, L) probabilities, rounded to six digits; NaN for sentences that were not needed for the decision, or that
            passed the gate.
        audited: indices of the sentences that passed the gate and were scored all the same.
    """

    spans: list[tuple[int, int]]
    scores: np.ndarray
    audited: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Verdict:
    """The decision about one document.

    Args:
        fate: kept, dropped or quarantine.
        scores: score of each label.
        label: the label whose threshold the document exceeds the most; empty if it is kept.
        reason: why the document is dropped, as in `P(hap) 0.93 >= 0.5`.
        value: score of that label.
    """

    fate: str
    scores: tuple[float, ...] = ()
    label: str = ""
    reason: str = ""
    value: float = 0.0

    @property
    def record(self) -> dict[str, Any]:
        """What is written beside a dropped document."""
        return {"label": self.label, "score": self.value, "reason": self.reason}


def verdict_of(scored: Scored | None, policy: Policy) -> Verdict:
    """The verdict on a document; without scores, its record could not be read."""
    if scored is None:
        return Verdict("quarantine")
    scores = policy.decide(scored.scores)
    values = tuple(round(float(value), DIGITS) for value in scores)
    if not policy.reached(scores):
        return Verdict("kept", values)
    index = int(np.argmax(scores - np.asarray(policy.thresholds)))
    name = policy.labels[index]
    what = f"P({name})" if policy.document_score == "max" else f"{policy.document_score} of P({name})"
    return Verdict("dropped", values, name, f"{what} {values[index]} >= {policy.thresholds[index]}", values[index])
