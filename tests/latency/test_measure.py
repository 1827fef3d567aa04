"""The measuring loop with a mock worker: its clock and the bursts of load on the host are simulated."""

import itertools
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdnas.errors import KdnasError, UsageError
from kdnas.latency import process
from kdnas.latency.measure import measure, worker_setup
from kdnas.latency.process import Worker, WorkerError
from kdnas.latency.protocol import LatencyOptions, design, stratify
from kdnas.latency.samples import TEACHER
from kdnas.models.teacher import Teacher
from kdnas.store.json_files import read_jsonl

from .worker_fixture import MockWorker

LENGTHS = stratify(np.array([10, 10, 20, 20]), 2)
ORDER = [str(arch) for arch in design(0)]


class FakeWorker(MockWorker):
    """Answers immediately. At the request numbers in `bursts` some references are slower; at those in `deaths` it dies."""

    numbers: Iterator[int] = itertools.count(1)
    bursts: tuple[int, ...] = ()
    deaths: tuple[int, ...] = ()
    setups: list[dict[str, Any]] = []  # noqa: RUF012

    def __init__(self, setup: dict[str, Any]) -> None:
        super().__init__(setup)
        self.setups.append(setup)

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        number = next(self.numbers)
        if number in self.deaths:
            raise WorkerError(f"death at request {number}")
        references = [5.0, 15.0, 5.0, 15.0, 5.0] if number in self.bursts else [5.0] * 5
        return {"arch": request["arch"], "times_ms": [[1.0, 2.0]] * 4, "references_ms": references}


@pytest.fixture
def fake_worker(monkeypatch: pytest.MonkeyPatch) -> type[FakeWorker]:
    fresh = type("Fresh", (FakeWorker,), {"numbers": itertools.count(1), "setups": []})
    monkeypatch.setattr(process, "Worker", fresh)
    return fresh


def run(log: Path, teacher: Teacher, seconds_before: float = 0.0, **options: Any) -> list[Any]:
    chosen = LatencyOptions(**{"minutes": 1, "max_architectures": 70, **options})
    setup = worker_setup(log.parent, teacher, LENGTHS, chosen)
    return measure(log, setup, LENGTHS, ORDER[: chosen.max_architectures], chosen, time.monotonic() - seconds_before)


def slow(seconds: float) -> Iterator[int]:
    """Request numbers, each after a delay."""
    for number in itertools.count(1):
        time.sleep(seconds)
        yield number


def kept(samples: list[Any]) -> list[str]:
    return [sample["arch"] for sample in samples if sample["kept"] and sample["arch"] != TEACHER]


def test_each_architecture_is_measured_once_in_fresh_processes(
    fake_worker: type[FakeWorker], tmp_path: Path, teacher: Teacher
) -> None:
    samples = run(tmp_path / "log", teacher)
    assert read_jsonl(tmp_path / "log") == samples
    assert sorted(kept(samples)) == sorted(ORDER[:70])
    assert len(fake_worker.setups) == 2  # 60 architectures per process
    assert [sample["number"] for sample in samples if sample["arch"] == TEACHER] == [1, 17, 33, 49, 65]
    assert [sample["process"] for sample in samples] == [1] * 64 + [2] * 11
    assert kept(samples)[:60] != ORDER[:60]
    assert sorted(kept(samples)[:60]) == sorted(ORDER[:60])
    assert [sample["number"] for sample in samples] == list(range(1, 76))


def test_a_burst_is_discarded_and_queued_again(fake_worker: type[FakeWorker], tmp_path: Path, teacher: Teacher) -> None:
    fake_worker.bursts = (10, 11)
    samples = run(tmp_path / "log", teacher)
    discarded = [sample["number"] for sample in samples if not sample["kept"]]
    assert discarded == [10, 11]
    assert sorted(kept(samples)) == sorted(ORDER[:70])
    assert {sample["arch"] for sample in samples if not sample["kept"]} <= set(kept(samples))


def test_a_dead_worker_is_replaced(
    fake_worker: type[FakeWorker], tmp_path: Path, teacher: Teacher, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_worker.deaths = (5, 6, 20)
    samples = run(tmp_path / "log", teacher)
    assert sorted(kept(samples)) == sorted(ORDER[:70])
    assert "death at request 5" in capsys.readouterr().err
    assert len(fake_worker.setups) == 4


def test_a_worker_that_always_dies_ends_the_measurement(
    fake_worker: type[FakeWorker], tmp_path: Path, teacher: Teacher
) -> None:
    fake_worker.deaths = (4, 5, 6)
    with pytest.raises(KdnasError, match="died 3 times: death at request 6"):
        run(tmp_path / "log", teacher)
    assert len(read_jsonl(tmp_path / "log")) == 3
    samples = run(tmp_path / "log", teacher)  # the worker works again later
    assert sorted(kept(samples)) == sorted(ORDER[:70])


@pytest.mark.slow
def test_the_budget_counts_earlier_attempts(fake_worker: type[FakeWorker], tmp_path: Path, teacher: Teacher) -> None:
    """An interrupted run left a few seconds of its budget: the next run measures only within them."""
    log = tmp_path / "log"
    samples = run(log, teacher)
    rows = [{**sample, "seconds": 0.8} for sample in samples[:55]]  # 44 of 60 s, and two windows and the fit follow
    log.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    fake_worker.numbers = slow(0.5)
    again = run(log, teacher)
    assert again[:55] == rows
    assert 55 < len(again) < 72
    assert sum(sample["seconds"] for sample in again) < 60


def test_time_before_the_first_window_does_not_count_as_its_speed(
    fake_worker: type[FakeWorker], tmp_path: Path, teacher: Teacher, capsys: pytest.CaptureFixture[str]
) -> None:
    """The A/A check: counted as work of this stage, it made the estimated end too early."""
    run(tmp_path / "log", teacher, seconds_before=120.0, minutes=10)
    assert "latency-table: started at 20 %" in capsys.readouterr().err


def test_the_error_for_a_small_budget_gives_a_sufficient_one(
    fake_worker: type[FakeWorker], tmp_path: Path, teacher: Teacher
) -> None:
    fake_worker.numbers = slow(0.8)
    with pytest.raises(
        UsageError, match=r"minutes is 0\.2: .* architectures were measured .* give at least .* minutes on this"
    ):
        run(tmp_path / "log", teacher, minutes=0.2)
    assert len(read_jsonl(tmp_path / "log")) <= 8  # reported early, not after the whole budget


@pytest.mark.slow
def test_a_pinned_worker_runs_only_on_its_cores(tmp_path: Path, teacher: Teacher) -> None:
    usable = os.sched_getaffinity(0)
    for pin, expected in ((True, 1), (False, len(usable))):
        setup = worker_setup(tmp_path, teacher, LENGTHS, LatencyOptions(threads=1, pin=pin))
        with Worker(setup) as worker:
            worker.start()
            cpus = os.sched_getaffinity(worker._process.pid)
        assert len(cpus) == expected
        assert cpus <= usable


@pytest.mark.slow
def test_a_real_worker_reports_why_it_died() -> None:
    with (
        Worker({"threads": 1, "cpus": []}) as worker,
        pytest.raises(WorkerError, match=r"exit code 1; .*: KeyError: 'teach"),
    ):
        worker.start()
