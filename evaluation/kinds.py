"""The kinds of tasks: the encoding of their rows, the model head, the loss, and the predictions in any engine."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.utils import logging

from kdnas.evaluation.tasks import Answers, Kind, Split
from kdnas.export.session import BATCH_TOKENS, read_tokenizer, softmax
from kdnas.export.spans import Answerer, Runs, Windows, text_logits, word_labels
from kdnas.models.family import shape_of

IGNORED = -100  # target of a token that the loss ignores


# Model classes of transformers, and task names of the exporter.
HEADS = {
    Kind.CLASSES: "AutoModelForSequenceClassification",
    Kind.SCORE: "AutoModelForSequenceClassification",
    Kind.WORDS: "AutoModelForTokenClassification",
    Kind.SPANS: "AutoModelForQuestionAnswering",
}
EXPORT_TASKS = {
    Kind.CLASSES: "text-classification",
    Kind.SCORE: "text-classification",
    Kind.WORDS: "token-classification",
    Kind.SPANS: "question-answering",
}


@dataclass(frozen=True)
class Encoded:
    """Training inputs and targets of N rows; a question has one row for each window of its context.

    Args:
        kind: kind of the task.
        ids: token ids (T,) of each row.
        types: token types (T,) of each row, 0 or 1 for the first or second text; empty if the model has no token types.
        targets: target of each row: a class () or number (); a class per token (T,); or first and last token of the answer (2,).
    """

    kind: Kind
    ids: list[np.ndarray]
    types: list[np.ndarray]
    targets: list[np.ndarray]

    @classmethod
    def of(cls, kind: Kind, split: Split, model: Path, seq_len: int) -> "Encoded":
        """Tokenise a split with a model's tokenizer, cut at `seq_len`."""
        tokenizer = read_tokenizer(model / "tokenizer.json", seq_len)
        if kind is Kind.SPANS:
            windows = Windows(tokenizer, seq_len)
            pairs = [
                (window, np.asarray(answer_tokens(window, answer)))
                for (question, context), answer in zip(split.texts, split.labels, strict=True)
                for window in windows.of(question, context)
            ]
        else:
            encodings = tokenizer.encode_batch(split.texts, is_pretokenized=kind is Kind.WORDS)
            if kind is Kind.WORDS:
                targets = [word_targets(one, labels) for one, labels in zip(encodings, split.labels, strict=True)]
            else:
                exact = np.int64 if kind is Kind.CLASSES else np.float32
                targets = [np.asarray(label, dtype=exact) for label in split.labels]
            pairs = list(zip(encodings, targets, strict=True))
        typed = shape_of(json.loads((model / "config.json").read_text())).types > 1
        return cls(
            kind,
            [np.asarray(encoding.ids, dtype=np.int64) for encoding, _ in pairs],
            [np.asarray(encoding.type_ids, dtype=np.int64) for encoding, _ in pairs] if typed else [],
            [target for _, target in pairs],
        )

    @property
    def lengths(self) -> np.ndarray:
        """Number of tokens in each row, (N,)."""
        return np.asarray([len(row) for row in self.ids], dtype=np.int64)

    def batch(self, indices: np.ndarray, pad_id: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Padded inputs (B, T) of rows and their targets (B, ...); T is a multiple of 8, to limit the number of shapes."""
        chosen = [int(index) for index in indices]
        width = -(-max(len(self.ids[index]) for index in chosen) // 8) * 8
        feeds = {
            "input_ids": _padded([self.ids[index] for index in chosen], width, pad_id),
            "attention_mask": _padded([np.ones_like(self.ids[index]) for index in chosen], width, 0),
        }
        if self.types:
            feeds["token_type_ids"] = _padded([self.types[index] for index in chosen], width, 0)
        targets = [self.targets[index] for index in chosen]
        stacked = _padded(targets, width, IGNORED) if self.kind is Kind.WORDS else torch.from_numpy(np.stack(targets))
        return feeds, stacked


def _padded(rows: Sequence[np.ndarray], width: int, value: int) -> torch.Tensor:
    """Rows (B, width), padded with a value."""
    result = torch.full((len(rows), width), value)
    for index, row in enumerate(rows):
        result[index, : len(row)] = torch.from_numpy(row)
    return result


def word_targets(encoding: Any, labels: Sequence[int]) -> np.ndarray:
    """The class of each word at its first token, (T,); `IGNORED` at all other tokens."""
    targets = np.full(len(encoding.ids), IGNORED, dtype=np.int64)
    seen = None
    for index, word in enumerate(encoding.word_ids):
        if word is not None and word != seen:
            targets[index] = labels[word]
        seen = word
    return targets


def answer_tokens(window: Any, answer: Answers) -> tuple[int, int]:
    """First and last token of the answer in a window; (0, 0), the first special token, if the window lacks a part of it."""
    start, end = answer.start, answer.start + len(answer.texts[0])
    first = last = 0
    for index, ((begin, stop), part) in enumerate(zip(window.offsets, window.sequence_ids, strict=True)):
        if part == 1 and begin <= start < stop:
            first = index
        if part == 1 and begin < end <= stop:
            last = index
    return (first, last) if 0 < first <= last else (0, 0)


def load_head(path: Path, kind: Kind, labels: Sequence[str], seed: int) -> Any:
    """The encoder of a folder with a new head, initialised from `seed`, and class names in its configuration."""
    import transformers

    settings: dict[str, Any] = {"num_labels": len(labels)} if kind is not Kind.SPANS else {}
    if kind in (Kind.CLASSES, Kind.WORDS):
        settings["id2label"] = dict(enumerate(labels))
        settings["label2id"] = {label: index for index, label in enumerate(labels)}
    if kind is Kind.SCORE:
        settings["problem_type"] = "regression"
    torch.manual_seed(seed)
    with quiet():  # no warning about the new head
        return getattr(transformers, HEADS[kind]).from_pretrained(
            path, local_files_only=True, use_safetensors=True, trust_remote_code=False, **settings
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' warnings."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def loss_of(kind: Kind, output: Any, targets: torch.Tensor) -> torch.Tensor:
    """Training loss, as the mean over the batch: cross-entropy, or squared error for numbers.

    Args:
        kind: kind of the task.
        output: output of the model with logits (B, C), (B, 1) or (B, T, C), or start and end logits (B, T).
        targets: targets (B,), (B,), (B, T) or (B, 2), respectively.
    """
    cross_entropy = torch.nn.functional.cross_entropy
    if kind is Kind.SPANS:
        ends = (output.start_logits, output.end_logits)
        return torch.stack([cross_entropy(one.float(), targets[:, index]) for index, one in enumerate(ends)]).mean()
    logits = output.logits.float()
    if kind is Kind.SCORE:
        return torch.nn.functional.mse_loss(logits[:, 0], targets)
    if kind is Kind.WORDS:
        return cross_entropy(logits.transpose(1, 2), targets, ignore_index=IGNORED)
    return cross_entropy(logits, targets)


def predict(kind: Kind, runs: Runs, texts: Sequence[Any], batch_tokens: int = BATCH_TOKENS) -> Any:
    """Predictions of a model, in the order of the inputs.

    Args:
        kind: kind of the task.
        runs: a session, or a PyTorch model (`kdnas.export.judge.Candidate`).
        texts: N inputs.
        batch_tokens: maximum number of padded tokens in one call.

    Returns:
        Probabilities (N, C); numbers (N,); a class for each word of each text; or the text of each answer.
    """
    if kind is Kind.CLASSES:
        return softmax(text_logits(runs, texts, batch_tokens))
    if kind is Kind.SCORE:
        return text_logits(runs, texts, batch_tokens)[:, 0]
    if kind is Kind.WORDS:
        return word_labels(runs, texts, batch_tokens)
    return [answer.text for answer in Answerer(runs).answers(texts, batch_tokens=batch_tokens)]
