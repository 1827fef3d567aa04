"""Gated runs of the filter: settings, documents in two languages, and what the tests look at."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdnas.filtering import cascade
from kdnas.filtering.gate import gate_record
from kdnas.filtering.gate_options import GateOptions
from kdnas.filtering.ngrams import BITS
from kdnas.filtering.options import FilterOptions
from kdnas.filtering.run import filter_documents
from kdnas.store.artifact import Artifact
from kdnas.store.outcome import Outcome

from .filter_fixture import FORM

GATE_OPTIONS = GateOptions(True, sample=400, miss=0.2, confidence=0.9, audit=0.2)
SURE = replace(GATE_OPTIONS, confidence=0.99)
UNIT_MB = 0.004
LEVEL = 0.8


def gated(model: Path, source: Path, out: Path | str, gate: GateOptions = GATE_OPTIONS, **options: Any) -> Outcome:
    """A run with a gate; the threshold None is that of the model."""
    options = {"threshold": (LEVEL,), "unit_mb": UNIT_MB} | options
    return filter_documents(model, (str(source),), str(out), FORM, 1, FilterOptions(**options), False, gate=gate)


@pytest.fixture(scope="session")
def articles(sentences: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents of one to eight sentences in two languages, and one that cannot be read."""
    folder, first, number = tmp_path_factory.mktemp("articles"), 0, 0
    records: list[list[dict[str, object]]] = [[], [], []]
    while first < len(sentences):
        size = 1 + number % 8
        text = "\n".join(sentences[first : first + size])
        records[number % 3].append({"id": f"d{number}", "text": text, "lang": ["en", "de"][number % 2]})
        first, number = first + size, number + 1
    records[1].insert(4, {"text": None})
    for index, part in enumerate(records):
        (folder / f"{index}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in part))
    return folder


@pytest.fixture(scope="session")
def whole(classifier: Path, articles: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gated run in one process."""
    out = tmp_path_factory.mktemp("gated") / "out"
    assert gated(classifier, articles, out).exit_code == 4
    return out


def counts_of(out: Path) -> dict[str, Any]:
    return counts_in(Artifact.load(out, "filter").results)


def counts_in(results: dict[str, Any]) -> dict[str, Any]:
    """The results that do not depend on the host."""
    names = ("documents", "kept", "dropped", "quarantine", "sentences", "tokens", "scores", "samples", "gate")
    return {name: results[name] for name in names}


def bad_gate(passes: bool) -> dict[str, Any]:
    """The record of a gate that lets all sentences pass, or none."""
    made = {"used": True, "reason": "", "threshold": 1.0 if passes else -1.0, "audit": 0.5, "seed": 0}
    return gate_record(made, np.zeros(2**BITS, np.int16))


def never_again(patch: pytest.MonkeyPatch) -> None:
    """No unit is scored again without the gate."""
    patch.setattr(cascade, "is_beyond", lambda gate, miss, confidence: False)
