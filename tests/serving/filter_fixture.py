"""Helpers for the tests of the filter: write its input, run it, read its output."""

import gzip
import json
from pathlib import Path
from typing import Any

import zstandard

from kdnas.serving.filter import FilterOptions, filter_documents

FORM = "openvino-f32"


def opened(file: Path) -> bytes:
    data = file.read_bytes()
    if file.suffix == ".gz":
        return gzip.decompress(data)
    return zstandard.ZstdDecompressor().decompressobj().decompress(data) if file.suffix == ".zst" else data


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for file in sorted(folder.glob("part-*")) for line in opened(file).splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    """Name and content of every output file."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("part-*"))}


def write_documents(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"id": number, "text": text}) + "\n" for number, text in enumerate(texts)))
    return path


def run(model: Path, source: Path, out: Path, **options: Any) -> int:
    return filter_documents(model, source, out, FORM, 1, FilterOptions(**{"shard_documents": 64} | options)).exit_code
