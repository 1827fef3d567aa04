"""Tasks: labelled inputs in train, dev and test, with no text in two of them."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from kdnas.errors import UsageError

SPLITS = ("train", "dev", "test")
ROLES = ("teacher", "student")


class Kind(StrEnum):
    """What a task asks of a text."""

    CLASSES = "classes"  # its class; or that of a pair of texts
    SCORE = "score"  # a number; or that of a pair of texts
    WORDS = "words"  # the class of each of its words
    SPANS = "spans"  # the part of it that answers a question


@dataclass(frozen=True)
class Answers:
    """The right answers to a question.

    Args:
        texts: each is right.
        start: first character of the first in the context.
    """

    texts: tuple[str, ...]
    start: int


@dataclass(frozen=True)
class Split:
    """Labelled inputs.

    Args:
        texts: texts; pairs of texts; lists of words; or pairs of a question and its context.
        labels: class numbers; numbers; lists of class numbers; or `Answers`.
        languages: one for each; none where all are of one.
        groups: one for each, as the topic of an insult; none where the set has none.
    """

    texts: list[Any]
    labels: list[Any]
    languages: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.texts)

    def first(self, count: int) -> "Split":
        """The first `count` rows."""
        return self.rows(range(min(count, len(self))))

    def rows(self, indices: Sequence[int]) -> "Split":
        """The rows at these places, in this order."""
        columns = (self.texts, self.labels, self.languages, self.groups)
        return Split(*([column[index] for index in indices] if column else [] for column in columns))


@dataclass(frozen=True)
class Task:
    """What a model is taught and measured on.

    Args:
        name: as `topic`, `hap` or `glue/sst2`; names the folder of the model.
        labels: names of the classes; their places are the class numbers. One name for a number, none for spans.
        train: rows that change weights.
        dev: rows that choose the learning rate and the checkpoint.
        test: rows that are scored once.
        positive: number of the class that binary metrics are about; None where there is none.
        notes: how the splits were made, for the report.
        kind: what is asked.
        metric: the figure that decides, one of those of `kdnas.evaluation.metric_modules.scores_of`.
    """

    name: str
    labels: list[str]
    train: Split
    dev: Split
    test: Split
    positive: int | None = None
    notes: str = ""
    kind: Kind = Kind.CLASSES
    metric: str = "macro_f1"

    def check(self, source: str) -> None:
        """Refuse splits that nothing can be learnt from or measured on.

        Raises:
            UsageError: fewer than 20, 4 and 10 rows, or fewer than two classes in one of them.
        """
        for name, least in zip(SPLITS, (20, 4, 10), strict=True):
            split = getattr(self, name)
            counts = Counter(split.labels)
            if len(split) < least or len(counts) < 2:
                given = ", ".join(f"{counts[index]} {label}" for index, label in enumerate(self.labels))
                raise UsageError(
                    f"{source}: its {name} split has {len(split)} different texts ({given}); at least {least} "
                    "texts of at least two classes are needed"
                )


def normal_form(text: str) -> str:
    """What decides whether two texts are the same: case and white space do not."""
    return " ".join(text.split()).lower()


def position_of(text: str, seed: int) -> float:
    """A place in [0, 1) that depends on the text and the seed alone; decides splits, orders and caps."""
    digest = hashlib.sha256(f"{seed}:{normal_form(text)}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def ordered(rows: list[tuple[str, int]], seed: int) -> Split:
    """Rows shuffled by their hash, so that any prefix is a random sample."""
    rows = sorted(rows, key=lambda row: (position_of(row[0], seed), row[0]))
    return Split([text for text, _ in rows], [label for _, label in rows])


def write_labelled(file: Path, task: Task) -> None:
    """Write the test texts of a task as lines of `text` and `label`, the label by its name."""
    file.parent.mkdir(exist_ok=True)
    rows = zip(task.test.texts, task.test.labels, strict=True)
    lines = [json.dumps({"text": text, "label": task.labels[label]}, ensure_ascii=False) for text, label in rows]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
