"""The protocol of a kind of task: its rows, model head, loss, predictions and scores."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kdnas.evaluation.rows import Split
from kdnas.export.presplit import for_words
from kdnas.export.session import BATCH_TOKENS
from kdnas.export.spans import Runs

if TYPE_CHECKING:
    import torch


class TaskKind(ABC):
    """One kind of task. torch, datasets and scikit-learn are imported inside the methods: listing the tasks needs none of them.

    Attributes:
        name: name in messages and metric modules.
        head: model class of transformers.
        export_task: task of the exporter, a key of `kdnas.export.folder.TASKS`.
        score_names: scores that a model card shows, in this order.
        labels_are_classes: a label is the class number of a whole input, so absent classes can be reported, and a binary task
            has a threshold.
        splits_words: inputs are lists of words.
    """

    name: str
    head: str
    export_task: str
    score_names: tuple[str, ...]
    labels_are_classes: bool = False
    splits_words: bool = False

    def read_input(self, values: Sequence[Any]) -> Any:
        """An input in the format of `Split.texts`.

        Args:
            values: values of the input columns in one row.

        Raises:
            ValueError: a value has the wrong type; the message says what is needed.
        """
        if not all(isinstance(value, str) for value in values):
            raise ValueError("must be strings")
        return values[0] if len(values) == 1 else tuple(values)

    @abstractmethod
    def read_label(self, value: Any, labels: Sequence[str], numbers: Mapping[str, int], otherwise: int | None) -> Any:
        """A label in the format of `Split.labels`; None if it is hidden.

        Args:
            value: value of the label column in one row.
            labels: class names.
            numbers: class number of each value; empty if the values are class numbers.
            otherwise: class number of values that are not in `numbers`; None refuses them.

        Raises:
            ValueError: the label is unknown; the message begins with a verb.
        """

    def plain_text(self, text: Any) -> str:
        """An input as one text, for calibration and distillation."""
        return text if isinstance(text, str) else " ".join(text)

    def encode(self, split: Split, tokenizer: Any, seq_len: int) -> list[tuple[Any, np.ndarray]]:
        """Encodings of `tokenizers` and their training targets.

        Args:
            split: labelled inputs.
            tokenizer: cuts at `seq_len` tokens.
            seq_len: maximum number of tokens.
        """
        encodings = self.encodings(split.texts, tokenizer)
        return [(one, self.target(one, label)) for one, label in zip(encodings, split.labels, strict=True)]

    def encodings(self, texts: Sequence[Any], tokenizer: Any) -> list[Any]:
        """Encodings of `tokenizers`, one for each input."""
        if self.splits_words:
            tokenizer = for_words(tokenizer)
        found: list[Any] = tokenizer.encode_batch(list(texts), is_pretokenized=self.splits_words)
        return found

    def cut_note(self, texts: Sequence[Any], languages: Sequence[str], tokenizer: Any, seq_len: int) -> str:
        """How many inputs are cut at the maximum length, for the report; empty if none is.

        Args:
            texts: N test inputs.
            languages: language of each input; may be empty.
            tokenizer: cuts at `seq_len` tokens.
            seq_len: maximum number of tokens.
        """
        cut = sum(bool(one.overflowing) for one in self.encodings(texts, tokenizer))
        return f"{part_of(cut, len(texts))} test rows are cut at {seq_len} tokens" if cut else ""

    @abstractmethod
    def target(self, encoding: Any, label: Any) -> np.ndarray:
        """Training target of one encoding."""

    def stack(self, targets: Sequence[np.ndarray], width: int) -> "torch.Tensor":
        """Targets (B, ...) of a batch whose inputs have `width` tokens."""
        import torch

        return torch.from_numpy(np.stack(targets))

    @abstractmethod
    def head_settings(self, labels: Sequence[str]) -> dict[str, Any]:
        """Settings of the model's configuration for its head."""

    @abstractmethod
    def loss(self, output: Any, targets: "torch.Tensor") -> "torch.Tensor":
        """Training loss, as the mean over the batch.

        Args:
            output: output of the model.
            targets: what `stack` returns.
        """

    @abstractmethod
    def predict(self, runs: Runs, texts: Sequence[Any], batch_tokens: int = BATCH_TOKENS) -> Any:
        """Predictions of a session or a PyTorch model (`kdnas.export.judge.Candidate`), in the order of the N inputs.

        Args:
            runs: the model.
            texts: inputs in the format of `Split.texts`.
            batch_tokens: maximum number of padded tokens in one call.
        """

    def truth(self, labels: Sequence[Any]) -> Any:
        """Labels as the reference of the metric."""
        return labels

    @abstractmethod
    def features(self) -> dict[str, Any]:
        """Types of one prediction and one reference in Hugging Face's `datasets`: `predictions`, `references`."""

    @abstractmethod
    def scores(self, truth: Any, predicted: Any, labels: Sequence[str], positive: int | None) -> dict[str, float]:
        """Scores from 0 (or -1) to 1.

        Args:
            truth: what `truth` returns.
            predicted: what `predict` returns.
            labels: class names.
            positive: number of the positive class of binary metrics; None if there is none.
        """


def part_of(count: int, whole: int) -> str:
    """A count with its whole and its fraction, as `3 of 200 (1.5 %)`."""
    return f"{count} of {whole} ({100 * count / whole:.1f} %)"


def class_names(labels: Sequence[str]) -> dict[str, Any]:
    """Settings of a configuration for classes with these names."""
    names = list(labels)
    return {
        "num_labels": len(names),
        "id2label": dict(enumerate(names)),
        "label2id": {n: i for i, n in enumerate(names)},
    }
