"""Helpers for the tests of the filter: write its input, run it, read its output."""

import gzip
import json
from pathlib import Path
from typing import Any

import zstandard

from kdnas.export.thresholds import THRESHOLDS
from kdnas.filtering.commits import RunFolder
from kdnas.filtering.open_store import open_store
from kdnas.filtering.options import FilterOptions
from kdnas.filtering.run import filter_documents
from kdnas.store.outcome import Outcome

FORM = "openvino-f32"
FATES = ("kept", "dropped", "quarantine", "scores")


def opened(file: Path) -> bytes:
    data = file.read_bytes()
    if file.suffix == ".gz":
        return gzip.decompress(data)
    return zstandard.ZstdDecompressor().decompressobj().decompress(data) if file.suffix == ".zst" else data


def parts(folder: Path) -> list[Path]:
    """Files of one fate, in the order of the units."""
    return sorted(folder.rglob("part-*"))


def lines(folder: Path) -> list[bytes]:
    return [line for file in parts(folder) for line in opened(file).splitlines()]


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines(folder)]


def contents(folder: Path) -> dict[str, bytes]:
    """Name and content of every output file."""
    return {str(file.relative_to(folder)): file.read_bytes() for fate in FATES for file in parts(folder / fate)}


def write_documents(path: Path, texts: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"id": number, "text": text}) + "\n" for number, text in enumerate(texts)))
    return path


def write_thresholds(folder: Path, labels: dict[str, Any]) -> Path:
    data = {"schema": 1, "wanted": {"precision": 0.9}, "labels": labels}
    (folder / THRESHOLDS).write_text(json.dumps(data))
    return folder


def run_folder(out: Path | str) -> RunFolder:
    """The output of a run that scores the label hap."""
    return RunFolder(open_store(str(out)), ["hap"])


def outcome(model: Path, source: Path | str | tuple[str, ...], out: Path | str, **options: Any) -> Outcome:
    inputs = source if isinstance(source, tuple) else (str(source),)
    return filter_documents(model, inputs, str(out), FORM, 1, FilterOptions(**options))


def run(model: Path, source: Path | str | tuple[str, ...], out: Path | str, **options: Any) -> int:
    return outcome(model, source, out, **options).exit_code
