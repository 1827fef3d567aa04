"""Rows of a task, from the hub or from local files with the same columns; notes report missing and left-out rows."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdnas.errors import KdnasError, UsageError
from kdnas.evaluation.overlap import without
from kdnas.evaluation.rows import Answers, Split
from kdnas.evaluation.sampling import spread
from kdnas.evaluation.suites import PARQUET, Source, Spec, StandIn
from kdnas.evaluation.tasks import SPLITS, Task, position_of
from kdnas.text.lines import json_rows

DEV_SHARE = 0.1
TEST_SHARE = 0.2  # fraction of train that becomes test if the set has no test split


class NoDataError(KdnasError):
    """The data of a task is not available; other tasks can continue."""


@dataclass
class Loaded:
    """A task with notes on its data for the report.

    Args:
        task: the task with train, dev and test.
        notes: notes on replaced splits, and on rows that are left out because they are unlabelled or also stand in test.
        digest: SHA-256 over all rows that were read.
    """

    task: Task
    notes: list[str]
    digest: str


@dataclass
class _Reading:
    """Reads the rows of a task, and collects notes and the digest."""

    spec: Spec
    root: Path | None
    notes: list[str] = field(default_factory=list)
    digest: Any = field(default_factory=hashlib.sha256)
    unlabelled: Counter[str] = field(default_factory=Counter)  # rows without a label, by the name of the split

    def split(self, index: int) -> tuple[Split, StandIn | None]:
        """Rows of split 0 (train), 1 (dev) or 2 (test) in all languages, and the replacement if the split is missing."""
        spec, name, role = self.spec, self.spec.splits[index], SPLITS[index]
        assert name is not None
        codes: Mapping[str, str] = spec.languages or {"": ""}
        if role != "test" and spec.train_languages:
            codes = {code: codes[code] for code in spec.train_languages}
        found, absent = self._all(spec.source, name, codes)
        if len(found):
            if absent:
                self.notes.append(f"no {name} rows in {', '.join(absent)}")
            return found, None
        stand_in = spec.stand_ins.get(role)
        if stand_in is not None and self.root is not None:
            found, _ = self._all(stand_in.source, stand_in.split, codes)
            if len(found):
                self.notes.append(stand_in.note)
                return found, stand_in
        where = f"hub set {spec.source.hub}" if self.root is None else self.root / spec.source.folder
        what, instead = f"has no {name} rows", "give another --data_root"
        if hidden := self.unlabelled[name]:
            what, instead = (
                f"has {hidden} {name} rows, but none of them has a label",
                "give labelled rows with --data_root",
            )
        raise NoDataError(f"{spec.name}: {where} {what}; {instead}, or leave the task out")

    def distinct(self, split: Split, name: str, other: Split, role: str) -> Split:
        """The rows of `split` whose input is not in `other`, with a note on the rows that are left out.

        Args:
            split: rows of train or dev.
            name: name of `split` in messages.
            other: rows that `split` must not share.
            role: name of `other` in messages.

        Raises:
            NoDataError: no row remains.
        """
        kept, seen = without(split, other)
        if split and not kept:
            raise NoDataError(
                f"{self.spec.name}: all {len(split)} {name} rows also stand in {role}; "
                "give other files with --data_root, or leave the task out"
            )
        if seen:
            self.notes.append(
                f"{len(split) - len(kept)} of {len(split)} {name} rows are left out, because they also stand in {role} "
                f"({seen} of {len(other)} {role} rows)"
            )
        return kept

    def _all(self, source: Source, split: str, codes: Mapping[str, str]) -> tuple[Split, list[str]]:
        """Rows in these languages, and the languages without rows."""
        found, absent = Split([], [], [], []), []
        for code, language in codes.items():
            rows = self._rows(source, split, code, language)
            if rows is None:
                absent.append(code)
            else:
                self._read(rows, split, code, found)
        return found, absent

    def _rows(
        self, source: Source, split: str, code: str, language: str
    ) -> Iterator[tuple[str, dict[str, Any]]] | None:
        """Location and content of each row; None if there is no such split."""
        if self.root is None:
            rows = _hub_rows(source, source.config.format(language=language) if source.config else None, split)
            return ((at, row) for at, row in rows if not source.by_id or str(row["id"]).startswith(language))
        stem = source.file.format(split=split, code=code, language=language)
        for suffix in (".jsonl.gz", ".jsonl"):
            file = self.root / source.folder / f"{stem}{suffix}"
            if file.is_file():
                return _file_rows(file)
        return None

    def _read(self, rows: Iterator[tuple[str, dict[str, Any]]], split: str, language: str, into: Split) -> None:
        hidden = unanswered = 0
        for where, row in rows:
            self.digest.update(json.dumps(row, sort_keys=True).encode())
            label = _label(self.spec, row, where)
            if label is None:
                hidden += 1
                continue
            if isinstance(label, Answers) and not label.texts:
                unanswered += 1
                continue
            into.texts.append(_input(self.spec, row, where))
            into.labels.append(label)
            into.languages.append(language)
            if self.spec.group:
                into.groups.append(str(row.get(self.spec.group, "")))
        self.unlabelled[split] += hidden + unanswered
        what = f" in {language}" if language else ""
        if hidden:
            self.notes.append(f"{hidden} rows{what} whose labels are hidden (-1) are left out")
        if unanswered:
            self.notes.append(f"{unanswered} {split} questions{what} without an answer are left out")


def load_task(spec: Spec, data_root: Path | None, seed: int = 0) -> Loaded:
    """Read the rows of a task. A missing dev or test split is cut from train by the hash of the text.

    Train and dev share no input with test, and train none with dev. Both are in the order of `spread`, so the first rows are an
    even random sample; test keeps the order of the files.

    Args:
        spec: the task's row in the table of suites.
        data_root: folder with the files; None reads from the hub.
        seed: seed of the hash and of the order of the train and dev rows.

    Raises:
        NoDataError: the rows are not available, have no labels, or are all in test.
        UsageError: a column is missing, a label is unknown, or a file cannot be read.
    """
    reading = _Reading(spec, data_root)
    train, instead = reading.split(0)
    if spec.splits[2] == spec.splits[0] or (instead is not None and instead is spec.stand_ins.get("test")):
        train, test = _cut(train, TEST_SHARE, seed)
        reading.notes.append(f"no test split: test is {len(test)} rows of train, chosen by the hash of the text")
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


def _key(text: Any) -> str:
    """The text whose hash decides the split of an input; for a pair the second, so the questions of a context stay together."""
    return text if isinstance(text, str) else text[-1] if isinstance(text, tuple) else " ".join(text)


def _cut(split: Split, fraction: float, seed: int) -> tuple[Split, Split]:
    """Split off a fraction of the rows by the hash of their text; returns the remaining rows and the fraction."""
    indices: tuple[list[int], list[int]] = ([], [])
    for index, text in enumerate(split.texts):
        indices[position_of(_key(text), seed) < fraction].append(index)
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


def _input(spec: Spec, row: Mapping[str, Any], where: str) -> Any:
    try:
        return spec.kind.read_input([row[column] for column in spec.columns])
    except KeyError as error:
        raise _missing(spec, row, where) from error
    except ValueError as error:
        raise UsageError(f"{where}: {', '.join(spec.columns)} {error} ({spec.name})") from error


def _label(spec: Spec, row: Mapping[str, Any], where: str) -> Any:
    """The label in the format of `Split.labels`; None if it is hidden.

    Raises:
        UsageError: the label is missing or unknown.
    """
    if spec.target not in row:
        raise _missing(spec, row, where)
    try:
        return spec.kind.read_label(row[spec.target], spec.labels, spec.classes, spec.otherwise)
    except ValueError as error:
        raise UsageError(f"{where}: {spec.target} {error} ({spec.name})") from error


def _missing(spec: Spec, row: Mapping[str, Any], where: str) -> UsageError:
    return UsageError(
        f"{where} has the columns {', '.join(sorted(row)) or 'none'}; {spec.name} needs "
        f"{', '.join([*spec.columns, spec.target])}"
    )


def _file_rows(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Location and content of each line of a .jsonl[.gz] file that is not blank."""
    for number, row in json_rows(file, str(file)):
        yield f"{file}: line {number}", row


def _hub_rows(source: Source, config: str | None, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Location and content of each row of a split on the hub.

    Raises:
        NoDataError: the split cannot be downloaded.
    """
    instead = f"give local files with the same columns: --data_root FOLDER reads FOLDER/{source.folder}"
    if not source.hub:
        raise NoDataError(f"{source.folder}: this set is not on the hub with these columns; {instead}")
    import datasets

    # The Parquet branch has no list of configurations, only a folder for each.
    chosen = {"data_dir": config or "default"} if source.revision == PARQUET else {"name": config}
    split = source.hub_splits.get(split, split)
    try:
        rows = datasets.load_dataset(
            source.hub, split=split, revision=source.revision, trust_remote_code=False, **chosen
        )
    except Exception as error:  # network errors, missing sets, missing splits: the library has many classes
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise NoDataError(
            f"{source.hub}: split {split} of revision {source.revision or 'main'} cannot be downloaded ({first}); {instead}"
        ) from error
    return ((f"{source.hub}: row {number}", dict(row)) for number, row in enumerate(rows))
