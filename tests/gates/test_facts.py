"""Checks without timing: this checkout matches the committed facts, and differences are reported."""

import json
from pathlib import Path

import pytest

from kdnas.errors import UsageError
from kdnas.gates.facts import differences, not_monotonic
from kdnas.gates.run import FACTS, gate_check
from kdnas.models.arch import Arch


@pytest.mark.slow
def test_this_checkout_matches_the_committed_facts() -> None:
    found = gate_check()
    assert found.results["differences"] == []
    assert found.exit_code == 0


def test_differences_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = json.loads(FACTS.read_text())
    monkeypatch.setattr("kdnas.gates.run.collect", lambda *_: known | {"export/openvino-f32/bytes": 1})
    found = gate_check()
    assert found.exit_code == 3
    assert str(found.text).startswith("export/openvino-f32/bytes: ")
    file = tmp_path / "facts.json"
    assert gate_check(file, write=True).path == file
    assert gate_check(file).exit_code == 0
    with pytest.raises(UsageError, match="gate check --write"):
        gate_check(tmp_path / "absent.json")


def test_only_rounding_differences_are_allowed() -> None:
    known = {"outputs": [0.5, 0.25], "bytes": 100, "operators": {"Add": 2}}
    assert differences(known, {**known, "outputs": [0.5002, 0.25]}) == []
    assert differences(known, {**known, "outputs": [0.51, 0.25]}) == ["outputs: [0.5, 0.25] before, [0.51, 0.25] now"]
    assert differences(known, {**known, "bytes": 101}) == ["bytes: 100 before, 101 now"]
    assert len(differences(known, {"bytes": 100, "new": 1})) == 3


def test_not_monotonic_matches_a_hand_count() -> None:
    shape = {"heads": 12, "hidden": 288, "activation": "gelu"}
    latencies = {
        Arch(3, ffn=384, **shape): 1.0,  # type: ignore[arg-type]
        Arch(4, ffn=384, **shape): 0.9,  # type: ignore[arg-type]
        Arch(6, ffn=384, **shape): 1.5,  # type: ignore[arg-type]
        Arch(3, ffn=512, **shape): 1.1,  # type: ignore[arg-type]
    }
    assert not_monotonic(latencies) == 1
