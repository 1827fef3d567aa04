"""Classification tasks: labelled texts in train, dev and test, with no text in two of them."""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kdnas.errors import UsageError

SPLITS = ("train", "dev", "test")
ROLES = ("teacher", "student")


@dataclass(frozen=True)
class Split:
    """Texts and their class numbers, in an order that does not depend on the order of the source."""

    texts: list[str]
    labels: list[int]

    def __len__(self) -> int:
        return len(self.texts)

    def first(self, count: int) -> "Split":
        """The first `count` rows."""
        return Split(self.texts[:count], self.labels[:count])


@dataclass(frozen=True)
class Task:
    """A single-sentence classification task.

    Args:
        name: `topic` or `hap`; names the folder of the classifier.
        labels: names of the classes; their places are the class numbers.
        train: rows that change weights.
        dev: rows that choose the learning rate and the checkpoint.
        test: rows that are scored once.
        positive: number of the class that binary metrics are about; None where there is none.
        notes: how the splits were made, for the report.
    """

    name: str
    labels: list[str]
    train: Split
    dev: Split
    test: Split
    positive: int | None = None
    notes: str = ""

    def check(self, source: str) -> None:
        """Refuse splits that nothing can be learnt from or measured on.

        Raises:
            UsageError: fewer than 20, 4 and 10 rows, or fewer than two classes in one of them.
        """
        for name, least in zip(SPLITS, (20, 4, 10), strict=True):
            split = getattr(self, name)
            counts = Counter(split.labels)
            if len(split) < least or len(counts) < 2:
                given = ", ".join(f"{counts[place]} {label}" for place, label in enumerate(self.labels))
                raise UsageError(
                    f"{source}: its {name} split has {len(split)} different texts ({given}); at least {least} "
                    "texts of at least two classes are needed"
                )


def normal_form(text: str) -> str:
    """What decides whether two texts are the same: case and white space do not."""
    return " ".join(text.split()).lower()


def place_of(text: str, seed: int) -> float:
    """A place in [0, 1) that depends on the text and the seed alone; decides splits, orders and caps."""
    digest = hashlib.sha256(f"{seed}:{normal_form(text)}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def ordered(rows: list[tuple[str, int]], seed: int) -> Split:
    """Rows shuffled by their hash, so that any prefix is a random sample."""
    rows = sorted(rows, key=lambda row: (place_of(row[0], seed), row[0]))
    return Split([text for text, _ in rows], [label for _, label in rows])


def encode(texts: list[str], model: Path, seq_len: int) -> list[np.ndarray]:
    """Token ids of each text, special tokens included, cut at `seq_len`.

    Args:
        model: folder with tokenizer.json.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(seq_len)
    return [np.asarray(encoding.ids, dtype=np.int64) for encoding in tokenizer.encode_batch_fast(texts)]


def write_labelled(file: Path, task: Task) -> None:
    """Write the test texts of a task as lines of `text` and `label`, the label by its name."""
    file.parent.mkdir(exist_ok=True)
    rows = zip(task.test.texts, task.test.labels, strict=True)
    lines = [json.dumps({"text": text, "label": task.labels[label]}, ensure_ascii=False) for text, label in rows]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
