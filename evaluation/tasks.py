"""Tasks: labelled inputs in the splits train, dev and test, which share no text."""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from kdnas.errors import UsageError
from kdnas.evaluation.kinds import CLASSES, TaskKind
from kdnas.evaluation.rows import Split

SPLITS = ("train", "dev", "test")
ROLES = ("teacher", "student")


@dataclass(frozen=True)
class Task:
    """A task on which a model is trained and scored.

    Args:
        name: name such as `topic`, `hap` or `glue/sst2`; it also names the folder of the model.
        labels: names of the classes; their indices are the class numbers. One name for a number, none for spans.
        train: rows for training.
        dev: rows for the choice of learning rate and checkpoint.
        test: rows that are scored once.
        positive: number of the positive class of binary metrics; None if there is none.
        notes: how the splits were made, for the report.
        kind: kind of the task.
        metric: the main metric, one of the scores of its kind.
    """

    name: str
    labels: list[str]
    train: Split
    dev: Split
    test: Split
    positive: int | None = None
    notes: str = ""
    kind: TaskKind = CLASSES
    metric: str = "macro_f1"

    @property
    def has_threshold(self) -> bool:
        """Whether the task is binary, so that dev chooses a decision threshold."""
        return self.kind.labels_are_classes and self.positive is not None

    def check(self, source: str) -> None:
        """Check that the splits are large enough for training and scoring.

        Raises:
            UsageError: train, dev or test has fewer than 20, 4 or 10 rows, or fewer than two classes.
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
    """The text in lower case with single spaces; texts with the same normal form count as equal."""
    return " ".join(text.split()).lower()


def position_of(text: str, seed: int) -> float:
    """A pseudo-random number in [0, 1) that depends only on the text and the seed; it decides splits, orders and caps."""
    digest = hashlib.sha256(f"{seed}:{normal_form(text)}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def ordered(rows: list[tuple[str, int]], seed: int) -> Split:
    """Rows shuffled by their hash, so that any prefix is a random sample."""
    rows = sorted(rows, key=lambda row: (position_of(row[0], seed), row[0]))
    return Split([text for text, _ in rows], [label for _, label in rows])


def write_labelled(file: Path, task: Task) -> None:
    """Write the test texts of a task as JSON lines with `text` and `label`, the name of the class."""
    file.parent.mkdir(exist_ok=True)
    rows = zip(task.test.texts, task.test.labels, strict=True)
    lines = [json.dumps({"text": text, "label": task.labels[label]}, ensure_ascii=False) for text, label in rows]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
