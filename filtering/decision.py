"""From the scores of sentences to the decision about a document; the same for the model's scores and for recorded ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kdnas.export.thresholds import base_language
from kdnas.filtering.options import DocumentScore

FIRST_SENTENCES = 16  # scored first; if one of them reaches a threshold, the rest of the document need not be scored
DIGITS = 6


@dataclass(frozen=True)
class Policy:
    """The rule that drops documents.

    Args:
        labels: labels that are scored.
        thresholds: threshold of each label; infinite for a label that no document gets.
        document_score: how the scores of sentences become the score of the document.
        sentence_threshold: for the document score `fraction`.
        by_language: thresholds of languages that have their own.
    """

    labels: tuple[str, ...]
    thresholds: tuple[float, ...]
    document_score: DocumentScore = "max"
    sentence_threshold: float = 0.5
    by_language: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def limits(self, language: str = "") -> tuple[float, ...]:
        """The threshold of each label for documents in a language."""
        return self.by_language.get(base_language(language), self.thresholds) if self.by_language else self.thresholds

    def reached(self, scores: np.ndarray, language: str = "") -> bool:
        """Whether one of the scores (L,) of a document reaches its threshold."""
        return any(score >= limit for score, limit in zip(scores.tolist(), self.limits(language), strict=True))

    def whole(self, scores: np.ndarray) -> np.ndarray:
        """Scores (L,) of a document from all its sentences' scores (S, L), where NaN counts as 0; 0 without sentences."""
        if self.document_score == "max" or not len(scores):
            return np.asarray(np.fmax.reduce(scores.reshape(-1, len(self.labels)), axis=0, initial=0.0))
        scores = np.nan_to_num(scores)
        if self.document_score == "mean":
            return np.round(scores.mean(axis=0), DIGITS)
        return np.round((scores >= self.sentence_threshold).mean(axis=0), DIGITS)

    def sentence_levels(self, languages: Sequence[str]) -> np.ndarray:
        """(D, L) score from which a sentence counts for a document in each of D languages."""
        if self.document_score == "fraction":
            return np.full((len(languages), len(self.labels)), self.sentence_threshold)
        return np.array([self.limits(language) for language in languages]).reshape(-1, len(self.labels))

    @property
    def lowest_levels(self) -> np.ndarray:
        """(L,) lowest score from which a sentence counts in any language."""
        return np.asarray(self.sentence_levels(["", *self.by_language]).min(axis=0))

    def positive(self, scores: np.ndarray, languages: Sequence[str], counts: Sequence[int]) -> np.ndarray:
        """(S,) whether one of each sentence's scores (S, L) reaches the level of its document's language; NaN does not.

        Args:
            scores: scores of S sentences.
            languages: language of each of D documents.
            counts: number of sentences of each document.
        """
        levels = np.repeat(self.sentence_levels(languages), counts, axis=0)
        return np.asarray((scores >= levels).any(axis=1))

    def decide(self, scores: np.ndarray, language: str = "") -> np.ndarray:
        """Scores (L,) that decide about a document: of its first sentences if these reach a threshold, else of all."""
        if self.document_score == "max" and len(scores) > FIRST_SENTENCES:
            first = self.whole(scores[:FIRST_SENTENCES])
            if self.reached(first, language):
                return first
        return self.whole(scores)


@dataclass(frozen=True)
class Scored:
    """Sentences of one document and their scores.

    Args:
        spans: start and end of each sentence in code points; empty if the scores are recorded ones.
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


def verdict_of(scored: Scored | None, policy: Policy, language: str = "") -> Verdict:
    """The verdict on a document in a language; without scores, its record could not be read."""
    if scored is None:
        return Verdict("quarantine")
    scores, limits = policy.decide(scored.scores, language), policy.limits(language)
    values = tuple(round(float(value), DIGITS) for value in scores)
    if not policy.reached(scores, language):
        return Verdict("kept", values)
    index = int(np.argmax(scores - np.asarray(limits)))
    name = policy.labels[index]
    what = f"P({name})" if policy.document_score == "max" else f"{policy.document_score} of P({name})"
    return Verdict("dropped", values, name, f"{what} {values[index]} >= {limits[index]}", values[index])
