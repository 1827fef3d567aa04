"""Rows of a task as training inputs, and the model with its head."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kdnas.evaluation.kinds import TaskKind
from kdnas.evaluation.rows import Split
from kdnas.export.folder import read_tokenizer
from kdnas.export.silence import silence_transformers
from kdnas.models.family import shape_of


@dataclass(frozen=True)
class Encoded:
    """Training inputs and targets of N rows; a question has one row for each window of its context.

    Args:
        kind: kind of the task.
        ids: token ids (T,) of each row.
        types: token types (T,) of each row, 0 or 1 for the first or second text; empty if the model has no token types.
        targets: target of each row: a class () or number (); a class per token (T,); or first and last token of the answer (2,).
    """

    kind: TaskKind
    ids: list[np.ndarray]
    types: list[np.ndarray]
    targets: list[np.ndarray]

    @classmethod
    def of(cls, kind: TaskKind, split: Split, model: Path, seq_len: int) -> "Encoded":
        """Tokenise a split with a model's tokenizer, cut at `seq_len`."""
        tokenizer = read_tokenizer(model / "tokenizer.json", seq_len)
        pairs = kind.encode(split, tokenizer, seq_len)
        typed = shape_of(json.loads((model / "config.json").read_text())).types > 1
        return cls(
            kind,
            [np.asarray(encoding.ids, dtype=np.int64) for encoding, _ in pairs],
            [np.asarray(encoding.type_ids, dtype=np.int64) for encoding, _ in pairs] if typed else [],
            [target for _, target in pairs],
        )

    @staticmethod
    def cut_notes(kind: TaskKind, split: Split, model: Path, seq_len: int) -> list[str]:
        """A note for the report if a model's tokenizer cuts rows of a split at `seq_len`, else none."""
        tokenizer = read_tokenizer(model / "tokenizer.json", seq_len)
        note = kind.cut_note(split.texts, split.languages, tokenizer, seq_len)
        return [note] if note else []

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
        return feeds, self.kind.stack([self.targets[index] for index in chosen], width)


def _padded(rows: Sequence[np.ndarray], width: int, value: int) -> torch.Tensor:
    """Rows (B, width), padded with a value."""
    result = torch.full((len(rows), width), value)
    for index, row in enumerate(rows):
        result[index, : len(row)] = torch.from_numpy(row)
    return result


def load_head(path: Path, kind: TaskKind, labels: Sequence[str], seed: int) -> Any:
    """The encoder of a folder with a new head, initialised from `seed`, and class names in its configuration."""
    torch.manual_seed(seed)
    with silence_transformers():  # no warning about the new head
        return head_class(kind).from_pretrained(
            path, local_files_only=True, use_safetensors=True, trust_remote_code=False, **kind.head_settings(labels)
        )


def head_class(kind: TaskKind) -> Any:
    """The model class of transformers for a kind of task."""
    import transformers

    return getattr(transformers, kind.head)
