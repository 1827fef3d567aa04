"""Exports and documents for the filter."""

from pathlib import Path

import pytest

from ..classifier_fixture import classifier, encoder, kdnas, sentences
from .filter_fixture import write_documents

__all__ = ["classifier", "encoder", "kdnas", "sentences"]


@pytest.fixture
def documents(tmp_path: Path, sentences: list[str]) -> Path:
    """The first 300 sentences as documents."""
    return write_documents(tmp_path / "docs.jsonl", sentences[:300])
