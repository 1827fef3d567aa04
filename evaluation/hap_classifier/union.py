"""The union of several labelled sets as one task: what is trained, and what is scored though no row of it was trained."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kdnas.errors import UsageError
from kdnas.evaluation.data import load_task
from kdnas.evaluation.hap_classifier.sets import LABELS, LANGUAGES, NAMES, HapSet, chosen_sets
from kdnas.evaluation.kinds import MULTI_LABEL
from kdnas.evaluation.overlap import without
from kdnas.evaluation.reading import NoDataError
from kdnas.evaluation.rows import Split
from kdnas.evaluation.tasks import Task
from kdnas.store.progress import say


@dataclass(frozen=True)
class Union:
    """Rows of several sets.

    Args:
        task: train, dev and test of the sets that are taught; `groups` of a row is the name of its set.
        outside: test rows of the sets and languages that were left out.
        notes: what was left out and why.
        digest: SHA-256 over all rows that were read.
    """

    task: Task
    outside: Split
    notes: list[str]
    digest: str


def read_union(
    sets: tuple[str, ...], leave_out: tuple[str, ...], languages: tuple[str, ...], data_root: Path | None
) -> Union:
    """Read the chosen sets. No text of train or dev occurs in any test split, also not in that of another set.

    Args:
        sets: names of sets; empty for all.
        leave_out: names of sets and codes of languages that are scored and not taught.
        languages: codes of the languages whose rows are read; empty for all.
        data_root: folder with the files; None reads from the hub.

    Raises:
        UsageError: a name is unknown, or nothing is left to teach.
        NoDataError: no set is available.
    """
    _check(leave_out, languages)
    chosen = chosen_sets(sets)
    absent = [name for name in leave_out if name in NAMES and name not in [one.name for one in chosen]]
    chosen += chosen_sets(tuple(absent), "leave_out") if absent else []
    taught: list[list[Split]] = []
    outside, notes, digests = Split([], [], [], []), list[str](), list[str]()
    for one in chosen:
        found = _read(one, languages, data_root, notes)
        if found is None:
            continue
        parts, digest = found
        digests.append(digest)
        left = [row for row, code in enumerate(parts[2].languages) if one.name in leave_out or code in leave_out]
        outside = outside.joined(parts[2].rows(left))
        kept = [_not_in(part, one.name, leave_out) for part in parts]
        taught.append(kept)
    if not taught:
        raise NoDataError("hap: none of the chosen sets is available; give local files with --data_root")
    if not any(len(train) for train, _, _ in taught):
        raise UsageError(
            f"no row is left to train on: sets {', '.join(one.name for one in chosen)}, languages "
            f"{', '.join(languages) or 'all'}, left out {', '.join(leave_out) or 'nothing'}"
        )
    train, dev, test = (_joined([parts[index] for parts in taught]) for index in range(3))
    train, dev = _apart(train, dev, test.joined(outside), notes)
    task = Task("hap", list(LABELS), train, dev, test, notes="; ".join(notes), kind=MULTI_LABEL, metric="macro_f1")
    return Union(task, outside, notes, hashlib.sha256("\n".join(digests).encode()).hexdigest())


def _check(leave_out: Sequence[str], languages: Sequence[str]) -> None:
    if unknown := [code for code in languages if code not in LANGUAGES]:
        raise UsageError(f"languages has {', '.join(unknown)}; allowed are {', '.join(LANGUAGES)}")
    if unknown := [name for name in leave_out if name not in (*NAMES, *LANGUAGES)]:
        allowed = ", ".join((*NAMES, *LANGUAGES))
        raise UsageError(f"leave_out has {', '.join(unknown)}; allowed are sets and languages: {allowed}")


def _read(
    one: HapSet, languages: Sequence[str], data_root: Path | None, notes: list[str]
) -> tuple[list[Split], str] | None:
    """Train, dev and test of a set in the wanted languages, and the digest; None if there are none."""
    codes = tuple(code for code in one.languages if not languages or code in languages)
    if not codes:
        return None
    try:
        loaded = load_task(replace(one.spec, languages=codes), data_root)
    except NoDataError as error:
        say(f"hap: left out: {error}")
        notes.append(f"{one.name}: not available")
        return None
    notes += [f"{one.name}: {note}" for note in loaded.notes]
    parts = []
    for name, split in (("train", loaded.task.train), ("dev", loaded.task.dev), ("test", loaded.task.test)):
        known = [row for row, truth in enumerate(split.labels) if any(value is not None for value in truth)]
        if len(known) < len(split):
            notes.append(f"{one.name}: {len(split) - len(known)} unclear {name} rows are left out")
        rows = split.rows(known)
        parts.append(Split(rows.texts, rows.labels, rows.languages, [one.name] * len(rows)))
    return parts, loaded.digest


def _not_in(split: Split, name: str, leave_out: Sequence[str]) -> Split:
    """The rows of a set whose set and language are not left out."""
    return split.rows(
        [row for row, code in enumerate(split.languages) if name not in leave_out and code not in leave_out]
    )


def _joined(splits: Sequence[Split]) -> Split:
    result = Split([], [], [], [])
    for split in splits:
        result = result.joined(split)
    return result


def _apart(train: Split, dev: Split, scored: Split, notes: list[str]) -> tuple[Split, Split]:
    """Train and dev without the texts that are scored, and train without those of dev; each counted in a note."""
    kept_dev = without(dev, scored).kept
    kept = without(train, scored).kept
    apart = without(kept, kept_dev).kept
    lost = {
        "train rows of one set are test rows of another": len(train) - len(kept),
        "dev rows of one set are test rows of another": len(dev) - len(kept_dev),
        "train rows of one set are dev rows of another": len(kept) - len(apart),
    }
    notes += [f"{count} {what} and left out" for what, count in lost.items() if count]
    return apart, kept_dev


def counts(split: Split) -> dict[str, dict[str, dict[str, int]]]:
    """Rows, and known and positive labels, by set and language, for the report."""
    found: dict[str, dict[str, Counter[str]]] = {}
    for name, code, truth in zip(split.groups, split.languages, split.labels, strict=True):
        row = found.setdefault(name, {}).setdefault(code, Counter())
        row["rows"] += 1
        for label, value in zip(LABELS, truth, strict=True):
            if value is not None:
                row[f"{label}_known"] += 1
                row[f"{label}_positive"] += value >= 0.5
    return {name: {code: dict(row) for code, row in codes.items()} for name, codes in found.items()}
