"""Exports and documents for the filter."""

import gzip
import json
from pathlib import Path

import pytest

from ..classifier_fixture import classifier, encoder, kdnas, sentences
from .filter_fixture import write_documents

__all__ = ["classifier", "encoder", "kdnas", "sentences"]


@pytest.fixture
def documents(tmp_path: Path, sentences: list[str]) -> Path:
    """The first 300 sentences as documents."""
    return write_documents(tmp_path / "docs.jsonl", sentences[:300])


@pytest.fixture
def mixed(tmp_path: Path, sentences: list[str]) -> Path:
    """A folder of files of several kinds, with a torn record and an archive that is longer than a unit."""
    folder = tmp_path / "in"
    for number in range(6):
        write_documents(folder / f"a{number}.jsonl", sentences[number * 40 : number * 40 + 40])
    with (folder / "a3.jsonl").open("a") as file:
        file.write('{"text": "torn\n')
    texts = [json.dumps({"text": " ".join(sentences[at : at + 3])}) for at in range(0, 900, 3)]
    (folder / "b.jsonl.gz").write_bytes(gzip.compress("\n".join(texts).encode()))
    (folder / "c.txt").write_text("\n".join(sentences[500:700]))
    return folder
