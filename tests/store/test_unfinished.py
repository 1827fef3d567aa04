"""A new run reports how its settings differ from those of unfinished artifacts."""

from pathlib import Path
from typing import Any

import pytest

from kdnas.store.artifact import build
from kdnas.store.unfinished import differences


def interrupted(folder: Path) -> dict[str, Any]:
    raise KeyboardInterrupt


def test_differences_have_both_values() -> None:
    theirs = {"config": {"options": {"minutes": 7, "seed": 0}, "columns": [1]}, "inputs": {"teacher": "a"}}
    ours = {"config": {"options": {"minutes": 10, "seed": 0}, "columns": [1]}, "inputs": {}}
    assert differences(theirs, ours) == ["config.options.minutes 7 (here 10)", "inputs.teacher a (here None)"]
    assert differences(ours, ours) == []


def test_unfinished_artifact_with_other_settings_is_reported_and_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, "thing", "x", {"minutes": 7, "threads": 1}, {}, interrupted)
    (left,) = (tmp_path / "thing").glob("*.partial")
    build(tmp_path, "thing", "x", {"minutes": 10, "threads": 1}, {}, lambda folder: {})
    message = capsys.readouterr().err
    assert f"{left}: unfinished, with other settings: config.minutes 7 (here 10); it is kept" in message
    assert "threads" not in message
    assert left.is_dir()
    build(tmp_path, "thing", "x", {"minutes": 7, "threads": 1}, {}, lambda folder: {})
    assert "unfinished" not in capsys.readouterr().err
    assert not left.exists()


def test_unfinished_artifact_with_other_inputs_is_ignored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, "thing", "x", {"minutes": 7}, {"corpus": "a"}, interrupted)
    build(tmp_path, "thing", "x", {"minutes": 10}, {"corpus": "b"}, lambda folder: {})
    assert capsys.readouterr().err == ""
