"""Read the rows of a task's splits, from the hub or from local files with the same columns."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdnas.errors import KdnasError, UsageError
from kdnas.evaluation.hub_revisions import PARQUET
from kdnas.evaluation.overlap import without
from kdnas.evaluation.rows import Answers, Split
from kdnas.evaluation.spec import Source, Spec, StandIn
from kdnas.evaluation.tasks import SPLITS
from kdnas.text.lines import json_rows

Row = tuple[str, dict[str, Any]]  # location and content


class NoDataError(KdnasError):
    """The data of a task is not available; other tasks can continue."""


@dataclass(frozen=True)
class Origin:
    """The rows of one language in one split of a source.

    Args:
        code: code of the language; empty for a set with one language.
        reader: task whose columns and classes the rows have.
        source: source of the rows.
        split: name of the split there.
    """

    code: str
    reader: Spec
    source: Source
    split: str


@dataclass
class Reading:
    """Reads the rows of a task, and collects notes and the digest.

    Args:
        spec: the task.
        root: folder with the files; None reads from the hub.
        notes: notes for the report.
        digest: SHA-256 over all rows that were read.
        unlabelled: rows without a label, by the index of the split.
    """

    spec: Spec
    root: Path | None
    notes: list[str] = field(default_factory=list)
    digest: Any = field(default_factory=hashlib.sha256)
    unlabelled: Counter[int] = field(default_factory=Counter)

    def split(self, index: int, languages: Sequence[str] | None = None) -> tuple[Split, StandIn | None]:
        """Rows of a split, and the replacement if the split is missing.

        Args:
            index: 0 (train), 1 (dev) or 2 (test).
            languages: codes; None reads the languages that the task teaches (train, dev) or scores (test).

        Raises:
            NoDataError: there are no rows with labels.
        """
        spec, role = self.spec, SPLITS[index]
        if languages is None:
            languages = spec.languages if role == "test" else spec.taught_languages
        origins = [self._origin(index, code) for code in languages or ("",)]
        found, absent = self._all(index, origins)
        if len(found):
            if absent:
                self.notes.append(f"no {origins[0].split} rows in {', '.join(absent)}")
            self.notes += self._sources(role, [origin for origin in origins if origin.code not in absent])
            return found, None
        stand_in = spec.stand_ins.get(role)
        if stand_in is not None and self.root is not None:
            codes = self._codes_of(stand_in, role, languages or ("",))
            found, _ = self._all(index, [Origin(code, spec, stand_in.source, stand_in.split) for code in codes])
            if len(found):
                self.notes.append(stand_in.note)
                if absent := [code for code in languages if code not in codes]:
                    self.notes.append(f"no {role} rows in {', '.join(absent)}")
                return found, stand_in
        raise self._nothing(index, origins)

    def distinct(self, split: Split, name: str, other: Split, role: str) -> Split:
        """The rows of `split` whose input is not in `other` in any language, with a note on the rows that are left out.

        Args:
            split: rows of train or dev.
            name: name of `split` in messages.
            other: rows that `split` must not share.
            role: name of `other` in messages.

        Raises:
            NoDataError: no row remains.
        """
        found = without(split, other)
        if split and not found.kept:
            raise NoDataError(
                f"{self.spec.name}: all {len(split)} {name} rows also occur in {role}; "
                "give other files with --data_root, or leave the task out"
            )
        if found.seen:
            several = len({*split.languages, *other.languages}) > 1
            same = f", {found.seen_in_language} of them in the same language" if several else ""
            self.notes.append(
                f"{len(split) - len(found.kept)} of {len(split)} {name} rows are left out, because they also occur in {role} "
                f"({found.seen} of {len(other)} {role} rows{same})"
            )
        return found.kept

    def _origin(self, index: int, code: str) -> Origin:
        part = self.spec.part(code, index)
        reader, splits = (self.spec, self.spec.splits) if part is None else (part.task, part.splits)
        split = splits[index]
        assert split is not None
        return Origin(code, reader, reader.source, split)

    def _sources(self, role: str, origins: Sequence[Origin]) -> list[str]:
        """Notes on the languages whose rows come from other tasks."""
        codes: dict[str, list[str]] = {}
        for origin in origins:
            if origin.reader is not self.spec:
                codes.setdefault(origin.reader.name, []).append(origin.code)
        return [f"{role} rows in {', '.join(found)} are those of {task}" for task, found in codes.items()]

    def _codes_of(self, stand_in: StandIn, role: str, languages: Sequence[str]) -> list[str]:
        """The languages to read from a replacement: those that it has, and for test none whose same rows are taught."""
        spec = self.spec
        codes = [code for code in languages if not stand_in.languages or code in stand_in.languages]
        if role == "test" and (stand_in.source, stand_in.split) == (spec.source, spec.splits[0]):
            codes = [code for code in codes if code not in spec.taught_languages]
        return codes

    def _nothing(self, index: int, origins: Sequence[Origin]) -> NoDataError:
        split, source = origins[0].split, origins[0].source
        where = f"hub set {source.hub}" if self.root is None else self.root / source.folder
        what, instead = f"has no {split} rows", "give another --data_root"
        if hidden := self.unlabelled[index]:
            what, instead = (
                f"has {hidden} {split} rows, but none of them has a label",
                "give labelled rows with --data_root",
            )
        codes = ", ".join(origin.code for origin in origins if origin.code)
        what += f" in {codes}" if codes and not hidden else ""
        return NoDataError(f"{self.spec.name}: {where} {what}; {instead}, or leave the task out")

    def _all(self, index: int, origins: Sequence[Origin]) -> tuple[Split, list[str]]:
        """The rows of all origins, and the languages without rows."""
        found, absent = Split([], [], [], [], []), []
        hidden, unanswered = Counter[str](), Counter[str]()
        for origin in origins:
            rows = self._rows(origin)
            if rows is None:
                absent.append(origin.code)
                continue
            for where, row in rows:
                self.digest.update(json.dumps(row, sort_keys=True).encode())
                label = _label(self.spec, origin.reader, row, where)
                if label is None:
                    hidden[origin.code] += 1
                elif isinstance(label, Answers) and not label.texts:
                    unanswered[origin.code] += 1
                else:
                    self._add(origin, row, where, label, found)
        self.unlabelled[index] += hidden.total() + unanswered.total()
        if hidden:
            self.notes.append(f"{hidden.total()} rows{_in(hidden)} whose labels are hidden (-1) are left out")
        if unanswered:
            split = origins[0].split
            counted = f"{unanswered.total()} {split} questions{_in(unanswered)}"
            self.notes.append(f"{counted} without an answer are left out")
        return found, absent

    def _add(self, origin: Origin, row: Mapping[str, Any], where: str, label: Any, into: Split) -> None:
        into.texts.append(_input(self.spec, origin.reader, row, where))
        into.labels.append(label)
        into.languages.append(origin.code)
        if self.spec.group:
            into.groups.append(str(row.get(self.spec.group, "")))
        if origin.source.pair_id:
            into.pairs.append(str(row.get(origin.source.pair_id, "")))

    def _rows(self, origin: Origin) -> Iterator[Row] | None:
        """The rows of an origin; None if there is no such split."""
        return rows_of(origin.source, origin.split, origin.code, self.root)


def rows_of(source: Source, split: str, code: str, root: Path | None) -> Iterator[Row] | None:
    """The rows of a split in a language, from local files or the hub; None if there is no such local file.

    Args:
        source: source of the rows.
        split: name of the split.
        code: code of the language; empty for a set with one language.
        root: folder with the files; None reads from the hub.

    Raises:
        NoDataError: the split cannot be downloaded.
    """
    language = source.name_of(code)
    if root is None:
        rows = _hub_rows(source, split, language)
        return ((at, row) for at, row in rows if not source.by_id or str(row["id"]).startswith(language))
    stem = source.file.format(split=split, code=code, language=language)
    for suffix in (".jsonl.gz", ".jsonl"):
        file = root / source.folder / f"{stem}{suffix}"
        if file.is_file():
            return _file_rows(file)
    return None


def _in(counts: Mapping[str, int]) -> str:
    codes = ", ".join(code for code in counts if code)
    return f" in {codes}" if codes else ""


def _input(spec: Spec, reader: Spec, row: Mapping[str, Any], where: str) -> Any:
    try:
        return spec.kind.read_input([row[column] for column in reader.columns])
    except KeyError as error:
        raise _missing(spec, reader, row, where) from error
    except ValueError as error:
        raise UsageError(f"{where}: {', '.join(reader.columns)} {error} ({spec.name})") from error


def _label(spec: Spec, reader: Spec, row: Mapping[str, Any], where: str) -> Any:
    """The label in the format of `Split.labels`; None if it is hidden.

    Raises:
        UsageError: the label is missing or unknown.
    """
    try:
        values = [row[column] for column in reader.targets]
    except KeyError as error:
        raise _missing(spec, reader, row, where) from error
    value = values[0] if len(values) == 1 else " ".join(map(str, values))
    try:
        return spec.kind.read_label(value, spec.labels, {**reader.classes, **spec.classes}, reader.otherwise)
    except ValueError as error:
        raise UsageError(f"{where}: {', '.join(reader.targets)} {error} ({spec.name})") from error


def _missing(spec: Spec, reader: Spec, row: Mapping[str, Any], where: str) -> UsageError:
    return UsageError(
        f"{where} has the columns {', '.join(sorted(row)) or 'none'}; {spec.name} needs "
        f"{', '.join([*reader.columns, *reader.targets])}"
    )


def _file_rows(file: Path) -> Iterator[Row]:
    """Each line of a .jsonl[.gz] file that is not blank."""
    for number, row in json_rows(file, str(file)):
        yield f"{file}: line {number}", row


def _hub_rows(source: Source, split: str, language: str) -> Iterator[Row]:
    """Each row of a split on the hub.

    Raises:
        NoDataError: the split cannot be downloaded.
    """
    instead = f"give local files with the same columns: --data_root FOLDER reads FOLDER/{source.folder}"
    if not source.hub:
        raise NoDataError(f"{source.folder}: this set is not on the hub with these columns; {instead}")
    import datasets

    config = source.config.format(language=language) if source.config else None
    # The Parquet branch has no list of configurations, only a folder for each.
    chosen: dict[str, Any] = {"data_dir": config or "default"} if source.revision == PARQUET else {"name": config}
    if source.hub_files:
        chosen = {"data_files": {split: source.hub_files[split]}}
    split = source.hub_splits.get(split, split).format(language=language)
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
