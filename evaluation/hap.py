"""Hate, abuse and profanity (HAP): labelled texts from local files as a binary task."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kdnas.errors import UsageError
from kdnas.evaluation.tasks import SPLITS, Task, normal_form, ordered, position_of
from kdnas.store.digest import file_sha256
from kdnas.text.lines import json_rows

LABELS = ["not-hap", "hap"]
SUFFIXES = (".jsonl", ".jsonl.gz")
SPLIT_NAMES = {"train": "train", "validation": "dev", "dev": "dev", "test": "test"}
POSITIVE = {"1", "true", "yes", "hap", "hate", "hateful", "offensive", "offense", "abusive", "profane", "toxic"}
NEGATIVE = {
    "0",
    "false",
    "no",
    "not-hap",
    "none",
    "neither",
    "neutral",
    "normal",
    "other",
    "clean",
    "nohate",
    "non-hate",
}
FORMS = "'tweet' and 'class' (0 hate, 1 offensive, 2 neither), or 'text' and 'label' (0, 1 or names)"
NOTE = (
    "not evaluated; give labelled texts with --hap PATH, a .jsonl[.gz] file or a folder of them with the "
    f"columns {FORMS}, for example the set of Davidson et al. 2017"
)

Rows = list[tuple[str, int]]


def hap_files(path: Path) -> list[Path]:
    """The .jsonl and .jsonl.gz files of the option `--hap`, sorted.

    Raises:
        UsageError: the path does not exist, or has no such file.
    """
    if path.is_file():
        if not path.name.endswith(SUFFIXES):
            raise UsageError(f"--hap {path}: unknown file type; give {' or '.join(SUFFIXES)}")
        return [path]
    if not path.is_dir():
        raise UsageError(f"--hap {path}: no such file or folder")
    files = sorted(file for file in path.iterdir() if file.is_file() and file.name.endswith(SUFFIXES))
    if not files:
        raise UsageError(f"--hap {path}: this folder has no {' or '.join(SUFFIXES)} file")
    return files


def hap_digest(path: Path) -> str:
    """SHA-256 over the names and contents of the files, independent of their path."""
    parts = [f"{file.name}:{file_sha256(file)}" for file in hap_files(path)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def read_hap(path: Path, seed: int = 0, limit: int | None = None) -> Task:
    """Read a HAP set.

    Files named train, validation (or dev) and test, or `<anything>.train` and so on, are the splits. Without a test file the
    validation file is the test split. A missing dev split is a tenth of train, by the hash of the text. If a file has another
    name, or there is no train file, or only one split, all rows are split 80/10/10 by the hash of the text. Texts that differ
    only in case and white space are kept once, in test before dev before train.

    Args:
        path: file or folder.
        seed: seed of the hash split and of the row order.
        limit: maximum number of rows over all splits, chosen by hash; None keeps all.

    Raises:
        UsageError: the path is missing, columns or labels are unknown, a file is not UTF-8, or there are too few rows or classes.
    """
    parts: dict[str, Rows] = {}
    read = 0
    for file in hap_files(path):
        stem = file.name.removesuffix(".gz").removesuffix(".jsonl").lower()
        rows = list(hap_rows(file))
        read += len(rows)
        parts.setdefault(SPLIT_NAMES.get(stem.rsplit(".", 1)[-1], "all"), []).extend(rows)
    splits, how = _splits(parts, seed)
    splits = _unique(splits)
    kept = sum(map(len, splits.values()))
    if limit is not None and limit < kept:
        splits = {name: _sample(rows, round(limit * len(rows) / kept), seed) for name, rows in splits.items()}
    counted = ", ".join(f"{len(splits[name])} {name}" for name in SPLITS)
    notes = f"{how}; {read} rows read, {read - kept} repeated texts left out, used {counted}"
    train, dev, test = (ordered(splits[name], seed) for name in SPLITS)
    task = Task("hap", LABELS, train, dev, test, positive=1, notes=notes)
    task.check(f"--hap {path}")
    return task


def _splits(parts: dict[str, Rows], seed: int) -> tuple[dict[str, Rows], str]:
    """Rows of train, dev and test, and a description of how they were split."""
    if "all" in parts or "train" not in parts or len(parts) == 1:
        rows = [row for split in parts.values() for row in split]
        names = {name: [row for row in rows if _share(row[0], seed) == name] for name in SPLITS}
        return names, "split 80/10/10 by the hash of the text"
    if "test" not in parts:
        rest, how = {"test": parts["dev"]}, "test is the validation file"
    else:
        rest, how = {"test": parts["test"]}, "test is the test file"
    if "test" in parts and "dev" in parts:
        return {"train": parts["train"], "dev": parts["dev"]} | rest, how + ", dev is the validation file"
    train = [row for row in parts["train"] if position_of(row[0], seed) >= 0.1]
    dev = [row for row in parts["train"] if position_of(row[0], seed) < 0.1]
    return {"train": train, "dev": dev} | rest, how + ", dev is a tenth of train by the hash of the text"


def _share(text: str, seed: int) -> str:
    index = position_of(text, seed)
    return "dev" if index < 0.1 else "test" if index < 0.2 else "train"


def _unique(splits: dict[str, Rows]) -> dict[str, Rows]:
    """Keep each text once over all splits: in test before dev before train, and its first row within a split."""
    seen: set[str] = set()
    kept: dict[str, Rows] = {}
    for name in ("test", "dev", "train"):
        kept[name] = []
        for text, label in splits[name]:
            form = normal_form(text)
            if form not in seen:
                seen.add(form)
                kept[name].append((text, label))
    return kept


def _sample(rows: Rows, count: int, seed: int) -> Rows:
    split = ordered(rows, seed).first(count)
    return list(zip(split.texts, split.labels, strict=True))


def hap_rows(file: Path) -> Iterator[tuple[str, int]]:
    """Text and label (1 for HAP, else 0) of each row of one file.

    Raises:
        UsageError: the file is not UTF-8 or not JSON lines, or columns or labels are unknown.
    """
    number = 0
    for number, row in json_rows(file, f"--hap {file}"):
        where = f"--hap {file}: line {number}"
        if {"tweet", "class"} <= set(row):
            text, label = row["tweet"], _davidson(row["class"], where)
        elif {"text", "label"} <= set(row):
            text, label = row["text"], _binary(row["label"], where)
        else:
            raise UsageError(f"{where} has the columns {', '.join(sorted(row)) or 'none'}; the file needs {FORMS}")
        if not isinstance(text, str):
            raise UsageError(f"{where}: the text is not a string but {text!r:.60}")
        if text.strip():
            yield text, label
    if not number:
        raise UsageError(f"--hap {file}: the file is empty; give JSON lines with {FORMS}")


def _davidson(value: Any, where: str) -> int:
    if isinstance(value, bool) or str(value) not in ("0", "1", "2"):
        raise UsageError(f"{where}: class is {value!r:.60}; allowed are 0 (hate), 1 (offensive) and 2 (neither)")
    return int(str(value) != "2")


def _binary(value: Any, where: str) -> int:
    name = str(value).strip().lower().replace("_", "-").replace(" ", "-")
    if name in POSITIVE:
        return 1
    if name in NEGATIVE:
        return 0
    raise UsageError(
        f"{where}: label is {value!r:.60}; allowed are {', '.join(sorted(POSITIVE))} for HAP, "
        f"and {', '.join(sorted(NEGATIVE))} for other texts"
    )


def class_counts(task: Task) -> dict[str, dict[str, int]]:
    """Number of rows of each class in each split, for the report."""
    return {
        name: {task.labels[index]: count for index, count in sorted(Counter(getattr(task, name).labels).items())}
        for name in SPLITS
    }
