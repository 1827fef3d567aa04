"""A larger time budget reuses the measurements of a smaller one; one that is too small is refused before any work."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from kdnas.errors import UsageError
from kdnas.latency import run
from kdnas.latency.measure import least_seconds, require_minutes
from kdnas.latency.protocol import LatencyOptions
from kdnas.latency.reuse import take_samples
from kdnas.models.teacher import Teacher
from kdnas.store.artifact import ATTEMPTS, MANIFEST
from kdnas.store.json_files import to_json

INPUTS = {"teacher": "a", "corpus": "b"}


def config(**options: Any) -> dict[str, Any]:
    return {"options": LatencyOptions(**options), "versions": {"torch": "2"}}


def left(folder: Path, windows: int, finished: bool, inputs: dict[str, str] = INPUTS, **options: Any) -> None:
    """A table with some measured windows."""
    folder.mkdir(parents=True)
    settings = {"config": to_json(config(**options)), "inputs": inputs}
    name, content = (MANIFEST, settings) if finished else (ATTEMPTS, {"settings": settings})
    (folder / name).write_text(json.dumps(content) + "\n")
    (folder / "samples.jsonl").write_text("{}\n" * windows)
    (folder / "check.jsonl").write_text("{}\n")


@pytest.mark.parametrize("finished", [False, True])
def test_samples_of_a_smaller_budget_are_reused(finished: bool, tmp_path: Path) -> None:
    left(tmp_path / "a", 30, finished, minutes=2)
    left(tmp_path / "b", 20, finished, minutes=3)
    left(tmp_path / "c", 90, finished, minutes=30)  # would be beyond the budget
    left(tmp_path / "d", 90, finished, minutes=2, seed=1)
    left(tmp_path / "e", 90, finished, {**INPUTS, "corpus": "other"}, minutes=2)
    folder = tmp_path / "new.partial"
    folder.mkdir()
    take_samples(folder, config(minutes=5), INPUTS)
    assert (folder / "samples.jsonl").read_text() == "{}\n" * 30
    assert (folder / "check.jsonl").is_file()
    (folder / "samples.jsonl").write_text("own\n")
    take_samples(folder, config(minutes=5), INPUTS)
    assert (folder / "samples.jsonl").read_text() == "own\n"


def test_nothing_is_reused_without_an_earlier_table(tmp_path: Path) -> None:
    left(tmp_path / "damaged", 5, True, minutes=2)
    (tmp_path / "damaged" / MANIFEST).write_text("{")
    folder = tmp_path / "new.partial"
    folder.mkdir()
    take_samples(folder, config(minutes=5), INPUTS)
    assert list(folder.iterdir()) == []


def test_too_few_minutes_are_refused_before_any_work(
    tmp_path: Path, teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "sample_corpus", lambda *_: pytest.fail("it tokenised"))
    with pytest.raises(UsageError, match=r"minutes is 0\.2: at least [0-9.]+ minutes .* give --minutes"):
        run.latency_table(LatencyOptions(minutes=0.2), teacher=teacher.spec, home=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_slow_host_gets_the_minutes_that_the_smallest_table_needs(
    tmp_path: Path, teacher: Teacher, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    given: list[float] = []

    def measure(log: Path, setup: Any, lengths: Any, order: Any, options: LatencyOptions, started: float) -> list[Any]:
        given.append(options.minutes)
        raise InterruptedError

    monkeypatch.setattr(run, "measure", measure)
    (tmp_path / "check.jsonl").write_text('{"seconds": 6}\n{"seconds": 7}\n{"seconds": 8}\n')
    for minutes in (2, 9):
        options = LatencyOptions(minutes=minutes)
        with pytest.raises(InterruptedError):
            run._measure_design(tmp_path / "samples.jsonl", {}, None, teacher, options, time.monotonic())  # type: ignore[arg-type]
    assert 5 < given[0] < 7
    assert given[1] == 9
    assert capfd.readouterr().err.count("slow or busy") == 1


def test_earlier_measurements_lower_the_minimum_budget() -> None:
    options = LatencyOptions(minutes=1)
    assert least_seconds(options, 40) < least_seconds(options, 20) < least_seconds(options)
    require_minutes(options, 59)
    with pytest.raises(UsageError, match=r"at least 1\.1 minutes"):
        require_minutes(options, 61)
    require_minutes(LatencyOptions(minutes=1, protocol="paper"), 61)
