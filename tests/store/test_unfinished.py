"""Who starts anew beside unfinished work is told what differs."""

from pathlib import Path
from typing import Any

import pytest

from kdnas.store.artifact import build
from kdnas.store.unfinished import differences


def interrupted(folder: Path) -> dict[str, Any]:
    raise KeyboardInterrupt


def test_differences_are_named_with_both_values() -> None:
    theirs = {"config": {"options": {"minutes": 7, "seed": 0}, "columns": [1]}, "inputs": {"teacher": "a"}}
    ours = {"config": {"options": {"minutes": 10, "seed": 0}, "columns": [1]}, "inputs": {}}
    assert differences(theirs, ours) == ["config.options.minutes 7 (here 10)", "inputs.teacher a (here None)"]
    assert differences(ours, ours) == []


def test_an_unfinished_one_with_other_settings_is_told_and_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, "thing", "x", {"minutes": 7, "threads": 1}, {}, interrupted)
    (left,) = (tmp_path / "thing").glob("*.partial")
    build(tmp_path, "thing", "x", {"minutes": 10, "threads": 1}, {}, lambda folder: {})
    told = capsys.readouterr().err
    assert f"{left}: unfinished, with other settings: config.minutes 7 (here 10); it is kept" in told
    assert "threads" not in told
    assert left.is_dir()
    build(tmp_path, "thing", "x", {"minutes": 7, "threads": 1}, {}, lambda folder: {})
    assert "unfinished" not in capsys.readouterr().err
    assert not left.exists()


def test_one_of_another_corpus_is_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, "thing", "x", {"minutes": 7}, {"corpus": "a"}, interrupted)
    build(tmp_path, "thing", "x", {"minutes": 10}, {"corpus": "b"}, lambda folder: {})
    assert capsys.readouterr().err == ""
