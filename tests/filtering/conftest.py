"""Exports and documents for the filter."""

import gzip
import json
import shutil
from pathlib import Path

import pytest

from kdnas.export.folder import MULTI_LABEL, SETTINGS

from ..classifier_fixture import classifier, encoder, kdnas, sentences
from .filter_fixture import write_documents, write_thresholds
from .gate_fixture import articles, whole
from .s3_fixture import address, bucket, store

__all__ = ["address", "articles", "bucket", "classifier", "encoder", "kdnas", "sentences", "store", "whole"]


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


@pytest.fixture
def independent(classifier: Path, tmp_path: Path) -> Path:
    """The classifier with independent labels, of which only hap has a threshold: 0.5, in German 0.8."""
    model = Path(shutil.copytree(classifier, tmp_path / "model"))
    settings = json.loads((model / SETTINGS).read_text())
    (model / SETTINGS).write_text(json.dumps(settings | {"problem_type": MULTI_LABEL}))
    hap = {"threshold": 0.5, "languages": {"de": {"threshold": 0.8}}}
    return write_thresholds(model, {"ok": {"threshold": None}, "hap": hap})
