"""The passes of the exhaustive protocol: order, parts, and resuming without lost or repeated requests."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdnas.errors import KdnasError
from kdnas.latency import exhaustive, process
from kdnas.latency.exhaustive import PROCESS_ARCHITECTURES, Passes, measure_passes, runs_of
from kdnas.latency.process import WorkerError
from kdnas.latency.protocol import design
from kdnas.store.json_files import read_jsonl

from .worker_fixture import MockWorker

NAMES = ["teacher", *map(str, design(0)[:9])]
MANY = [str(arch) for arch in design(0)[: PROCESS_ARCHITECTURES + 5]]


def passes(names: list[str] = NAMES, sentences: int = 1200, count: int = 3, seed: int = 0) -> Passes:
    return Passes(names, np.arange(sentences) % 50 + 3, count, 0.1, seed)


def as_row(key: tuple[int, str, int]) -> dict[str, Any]:
    return {"pass": key[0], "arch": key[1], "part": key[2]}


def test_parts_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [len(part) for part in passes().parts] == [500, 500, 200]
    monkeypatch.setattr(exhaustive, "PART", 4)
    assert Passes(["a"], np.arange(10), 1, 0.1, 0).parts == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert Passes(["a"], np.arange(8), 1, 0.1, 0).parts == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_each_pass_has_a_different_reproducible_order() -> None:
    wanted = passes().missing([])
    assert len(wanted) == len(set(wanted)) == 3 * 10 * 3
    assert [number for number, _, _ in wanted] == sorted(number for number, _, _ in wanted)
    orders = [[name for number, name, part in wanted if number == which and part == 0] for which in range(3)]
    for order in orders:
        assert sorted(order) == sorted(NAMES)
        assert order != NAMES
    assert len({tuple(order) for order in orders}) == 3
    assert [part for _, _, part in wanted] == [0, 1, 2] * 30  # all parts of a model are consecutive
    assert passes().missing([]) == wanted
    assert passes(seed=1).missing([]) != wanted


def test_finished_parts_are_skipped_and_the_rest_keeps_its_order() -> None:
    wanted = passes().missing([])
    done = wanted[:7] + wanted[40:42]
    assert passes().missing([as_row(key) for key in done]) == wanted[7:40] + wanted[42:]


@given(st.sets(st.sampled_from(passes().missing([]))))
def test_missing_and_finished_parts_are_complete(done: set[tuple[int, str, int]]) -> None:
    missing = passes().missing([as_row(key) for key in done])
    assert not done & set(missing)
    assert done | set(missing) == set(passes().missing([]))
    assert len(done) + len(missing) == 90


def test_runs_do_not_depend_on_the_order_of_the_log() -> None:
    rows = [
        {"pass": number, "arch": name, "part": part, "in_references": [100.0 * number + 10 * part + shift, 0.5 + shift]}
        for shift, name in enumerate(("a", "b"))
        for number in range(3)
        for part in range(2)
    ]
    expected = [[0, 0.5, 10, 0.5], [100, 0.5, 110, 0.5], [200, 0.5, 210, 0.5]]
    assert runs_of(rows, "a").tolist() == expected
    for seed in range(5):
        shuffled = [rows[index] for index in np.random.default_rng(seed).permutation(len(rows))]
        assert runs_of(shuffled, "a").tolist() == expected
        assert runs_of(shuffled, "b")[:, 0].tolist() == [1, 101, 201]


class FakeWorker(MockWorker):
    """Answers by the sentence's length; dies at the request numbers in `deaths`, counted over all processes."""

    deaths: tuple[int, ...] = ()
    asked = 0
    processes: list[list[str]] = []  # noqa: RUF012

    def start(self) -> None:
        self.processes.append([])

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        cls = type(self)
        cls.asked += 1
        if cls.asked in cls.deaths:
            raise WorkerError(f"death at request {cls.asked}")
        assert request["tolerance"] == 0.1
        self.processes[-1].append(request["arch"])
        values = [float(length) for length in request["sentences"]]
        return {"arch": request["arch"], "in_references": values, "reference_ms": 5.0, "again": 0}


@pytest.fixture
def fake_worker(monkeypatch: pytest.MonkeyPatch) -> type[FakeWorker]:
    fresh = type("Fresh", (FakeWorker,), {"processes": []})
    monkeypatch.setattr(process, "Worker", fresh)
    return fresh


def keys(rows: list[Any]) -> list[tuple[int, str, int]]:
    return [(row["pass"], row["arch"], row["part"]) for row in rows]


def test_each_pass_has_a_separate_process(fake_worker: type[FakeWorker], tmp_path: Path) -> None:
    wanted = passes(MANY, sentences=600, count=2)
    rows = measure_passes(tmp_path / "log", "test", {}, wanted)
    assert keys(rows) == wanted.missing([])
    assert read_jsonl(tmp_path / "log") == rows
    assert [len(set(names)) for names in fake_worker.processes] == [PROCESS_ARCHITECTURES, 5] * 2
    assert set(fake_worker.processes[0]) | set(fake_worker.processes[1]) == set(MANY)
    assert runs_of(rows, MANY[3]).tolist() == [wanted.lengths.tolist()] * 2


def test_deaths_lose_no_measurement(
    fake_worker: type[FakeWorker], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, wanted = tmp_path / "log", passes(sentences=600)
    fake_worker.deaths = (4, 9, 20, 21, 22)
    with pytest.raises(KdnasError, match="test: the measuring process died 3 times: death at request 22"):
        measure_passes(log, "test", {}, wanted)
    before = read_jsonl(log)
    assert keys(before) == wanted.missing([])[:17]  # 22 requests, five without an answer
    log.write_bytes(log.read_bytes() + b'{"pass": 0, "ar')  # killed during a write
    rows = measure_passes(log, "test", {}, wanted)
    assert rows[:17] == before
    assert keys(rows) == wanted.missing([])
    assert fake_worker.asked == 5 + len(rows)
    assert "test: started at 28 %" in capsys.readouterr().err
    assert read_jsonl(log) == rows
    assert measure_passes(log, "test", {}, wanted) == rows
    assert fake_worker.asked == 5 + len(rows)
