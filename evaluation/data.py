"""The train, dev and test rows of a task, with notes on missing and left-out rows."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdnas.evaluation.reading import Reading
from kdnas.evaluation.rows import Split
from kdnas.evaluation.sampling import spread
from kdnas.evaluation.spec import Spec
from kdnas.evaluation.tasks import Task, position_of

DEV_SHARE = 0.1
TEST_SHARE = 0.2  # fraction of train that becomes test if the set has no test split


@dataclass
class Loaded:
    """A task with notes on its data for the report.

    Args:
        task: the task with train, dev and test.
        notes: notes on replaced splits, and on rows that are left out because they are unlabelled or also occur in test.
        digest: SHA-256 over all rows that were read.
    """

    task: Task
    notes: list[str]
    digest: str


def load_task(spec: Spec, data_root: Path | None, seed: int = 0) -> Loaded:
    """Read the rows of a task. A missing dev or test split is cut from train by the hash of the text.

    Train and dev share no input with test, in any language, and train none with dev. Both are in the order of `spread`, so the
    first rows are an even random sample; test keeps the order of the files.

    Args:
        spec: the task's row in the table of suites.
        data_root: folder with the files; None reads from the hub.
        seed: seed of the hash and of the order of the train and dev rows.

    Raises:
        NoDataError: the rows are not available, have no labels, or are all in test.
        UsageError: a column is missing, a label is unknown, or a file cannot be read.
    """
    reading = Reading(spec, data_root)
    train, instead = reading.split(0)
    if spec.splits[2] == spec.splits[0] or (instead is not None and instead is spec.stand_ins.get("test")):
        train, test = _without_test_split(reading, train, seed)
    else:
        test, _ = reading.split(2)
    train = reading.distinct(train, "train", test, "test")
    if spec.splits[1] is None:
        train, dev = _cut(train, DEV_SHARE, seed + 1)
    else:
        dev = reading.distinct(reading.split(1)[0], "dev", test, "test")
        train = reading.distinct(train, "train", dev, "dev")
    train, dev = spread(train, seed), spread(dev, seed)
    notes = [*dict.fromkeys(reading.notes), *_absent_classes(spec, {"train": train, "dev": dev, "test": test})]
    task = Task(spec.name, list(spec.labels), train, dev, test, spec.positive, "; ".join(notes), spec.kind, spec.metric)
    return Loaded(task, notes, reading.digest.hexdigest())


def _without_test_split(reading: Reading, rows: Split, seed: int) -> tuple[Split, Split]:
    """Train and test rows of a set whose only labelled rows are its train rows.

    Of a language that is taught and scored, a fifth of the rows is test; of one that is only taught, or only scored, no row has
    to be held out. If the rows of the languages are translations of each other, a fifth is held out in all languages alike.

    Args:
        reading: reads the languages that are scored and not taught.
        rows: rows of the languages that are taught.
        seed: seed of the hash.
    """
    scored, taught = reading.spec.languages, reading.spec.taught_languages
    train, test = _cut(rows, TEST_SHARE, seed)
    if not rows.pairs:
        train = train.joined(_where(test, lambda language: bool(scored) and language not in scored))
    test = _where(test, lambda language: not scored or language in scored)
    if others := [code for code in scored if code not in taught]:
        read, _ = reading.split(0, others)
        test = test.joined(_cut(read, TEST_SHARE, seed)[1] if read.pairs else read)
    by = "pair's number" if rows.pairs else "text"
    reading.notes.append(f"no test split: test is {len(test)} rows of train, chosen by the hash of the {by}")
    return train, test


def _where(split: Split, wanted: Callable[[str], bool]) -> Split:
    """The rows whose language is wanted."""
    return split.rows([row for row, language in enumerate(split.languages) if wanted(language)])


def _key(text: Any) -> str:
    """The text whose hash decides the split of an input; for a pair the second, so the questions of a context stay together."""
    return text if isinstance(text, str) else text[-1] if isinstance(text, tuple) else " ".join(text)


def _cut(split: Split, fraction: float, seed: int) -> tuple[Split, Split]:
    """Split off a fraction of the rows by the hash of their text, or of the number that translations have in common.

    Returns:
        The remaining rows and the fraction.
    """
    indices: tuple[list[int], list[int]] = ([], [])
    keys = split.pairs or [_key(text) for text in split.texts]
    for index, key in enumerate(keys):
        indices[position_of(key, seed) < fraction].append(index)
    return split.rows(indices[0]), split.rows(indices[1])


def _absent_classes(spec: Spec, splits: Mapping[str, Split]) -> list[str]:
    if not spec.kind.labels_are_classes:
        return []
    notes = []
    for name, split in splits.items():
        counts = Counter(split.labels)
        absent = [label for index, label in enumerate(spec.labels) if not counts[index]]
        if absent:
            notes.append(f"no {name} rows of class {', '.join(absent)}")
    return notes
