"""Settings of a filter run that determine its result."""

from dataclasses import dataclass
from typing import Literal

from kdnas.errors import UsageError
from kdnas.export.session import BATCH_TOKENS

Mode = Literal["split", "annotate"]
DocumentScore = Literal["max", "mean", "fraction"]


@dataclass(frozen=True)
class DecisionOptions:
    """How the scores of sentences decide about a document.

    Args:
        label: documents with these labels are dropped; by default those in the model's thresholds.json, or the label that names
            harmful text (hap, toxic, hate, ...).
        threshold: a document whose score for a label is at least this is dropped; one number for all labels, or one for each; by
            default the thresholds by label and language in the model's thresholds.json, or 0.5.
        document_score: score of a document: the `max` or `mean` of its sentences' probabilities, or the `fraction` of sentences
            whose probability is at least `sentence_threshold`.
        sentence_threshold: probability from which a sentence counts for the document score `fraction`.
    """

    label: tuple[str, ...] | None = None
    threshold: tuple[float, ...] | None = None
    document_score: DocumentScore = "max"
    sentence_threshold: float = 0.5

    def __post_init__(self) -> None:
        for name, values in (("threshold", self.threshold or ()), ("sentence_threshold", (self.sentence_threshold,))):
            for value in values:
                if not 0 <= value <= 1:
                    raise UsageError(f"{name} is {value}; allowed are 0 to 1")
        if self.threshold == ():
            raise UsageError("threshold is empty; give one number, or one for each label")
        if self.threshold and self.label is not None and len(self.threshold) not in (1, len(self.label)):
            raise UsageError(
                f"threshold has {len(self.threshold)} numbers for {len(self.label)} labels; give one, or one for each label"
            )

    def thresholds(self, labels: list[str]) -> list[float]:
        """The given threshold of each label, 0.5 if none is given.

        Raises:
            UsageError: there are several thresholds, but not as many as labels.
        """
        given = self.threshold or (0.5,)
        if len(given) not in (1, len(labels)):
            raise UsageError(
                f"threshold has {len(given)} numbers for the labels {', '.join(labels)}; give one for each"
            )
        return list(given) if len(given) == len(labels) else list(given) * len(labels)


@dataclass(frozen=True)
class FilterOptions(DecisionOptions):
    """What is read, how it is scored, and what is written.

    Args:
        mode: `split` writes kept and dropped documents; `annotate` writes the scores of every sentence instead, from which
            `kdnas filter apply` makes the split.
        column: column with the text in JSONL and Parquet.
        id_column: column with the name of a document, for scores and reasons; without it a document is named FILE:BYTE or
            FILE:ROW.
        language_column: column with the language of a document, if there is one.
        max_quarantine: fraction of the documents that may be unreadable; the exit code is 4 if there are more.
        unit_mb: megabytes of uncompressed input in a unit; an interrupted run loses at most the units in progress.
        overlap: tokens shared by neighbouring windows of a sentence that is too long for the model.
        batch_tokens: maximum number of padded tokens in one batch.
    """

    mode: Mode = "split"
    column: str = "text"
    id_column: str = "id"
    language_column: str = "lang"
    max_quarantine: float = 0.0
    unit_mb: float = 96.0
    overlap: int = 16
    batch_tokens: int = BATCH_TOKENS

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.max_quarantine <= 1:
            raise UsageError(f"max_quarantine is {self.max_quarantine}; allowed are 0 to 1")
        if not 0 < self.unit_mb <= 4096:
            raise UsageError(f"unit_mb is {self.unit_mb}; allowed are more than 0, and at most 4096")
        if self.overlap < 0:
            raise UsageError(f"overlap is {self.overlap}; at least 0 tokens are needed")
        if self.batch_tokens < 1:
            raise UsageError(f"batch_tokens is {self.batch_tokens}; at least 1 is needed")

    @property
    def unit_bytes(self) -> int:
        return max(1, int(self.unit_mb * 1e6))
