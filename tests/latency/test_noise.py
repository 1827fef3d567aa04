"""The A/A check: its statistics, its message, and resuming."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdnas.errors import KdnasError
from kdnas.latency import process
from kdnas.latency.noise import MODEL, PROCESSES, WINDOWS, check_host, describe, spread
from kdnas.latency.process import WorkerError
from kdnas.latency.protocol import stratify
from kdnas.store.json_files import read_jsonl

from .worker_fixture import MockWorker

LENGTHS = stratify(np.array([10, 10, 20, 20]), 2)


def window(mean: float, reference_ms: float = 5.0) -> dict[str, Any]:
    """A window whose mean latency is `mean` reference windows."""
    times = [[0.5 * mean * reference_ms, 1.5 * mean * reference_ms]] * 4
    return {"arch": str(MODEL), "times_ms": times, "references_ms": [reference_ms] * 5}


class FakeWorker(MockWorker):
    """The n-th answer of all processes is `means[n]`; None is a death."""

    means: list[float | None] = []  # noqa: RUF012
    asked: list[int] = []  # noqa: RUF012

    def start(self) -> None:
        self.asked.append(0)

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert request == {"arch": str(MODEL)}
        self.asked[-1] += 1
        mean = self.means.pop(0)
        if mean is None:
            raise WorkerError("death")
        return window(mean)


@pytest.fixture
def fake_worker(monkeypatch: pytest.MonkeyPatch) -> type[FakeWorker]:
    fresh = type("Fresh", (FakeWorker,), {"means": [1.0] * 20, "asked": []})
    monkeypatch.setattr(process, "Worker", fresh)
    return fresh


def test_spread_by_hand() -> None:
    """Two windows 10 % apart: their logarithms deviate by log(1.1) / sqrt(2)."""
    sd = 100 * math.log(1.1) / math.sqrt(2)
    assert spread([window(2.0), window(2.2)], LENGTHS) == {
        "windows": 2,
        "sd_pct": round(sd, 2),
        "largest_pct": 10.0,
        "expected_bound_pct": round(2.6 * sd, 1),
    }
    found = spread([window(1.0), window(1.21), window(1.1)], LENGTHS)
    assert found["sd_pct"] == pytest.approx(100 * math.log(1.1), abs=0.01)
    assert found["largest_pct"] == 21.0


def test_a_uniform_slowdown_adds_no_spread() -> None:
    found = spread([window(2.0), window(2.0, reference_ms=15.0), window(2.0, reference_ms=7.0)], LENGTHS)
    assert (found["sd_pct"], found["largest_pct"], found["expected_bound_pct"]) == (0, 0, 0)


def test_a_quiet_host_is_reported_as_quiet(
    fake_worker: type[FakeWorker], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_worker.means = [1.0, 1.01] * 4
    found = check_host(tmp_path / "log", {}, LENGTHS)
    sd = 100 * math.log(1.01) * math.sqrt(2 / 7)  # eight values, each half of log(1.01) from their mean
    assert found["sd_pct"] == pytest.approx(sd, abs=0.005)
    assert found["quiet"] is True
    said = capsys.readouterr().err
    assert f"8 windows of one model, in 2 processes, differ by {sd:.2f} %" in said
    assert "largest 1 %" in said
    assert f"expect a bound of about {2.6 * sd:.1f} %" in said
    assert "noisy" not in said


def test_the_message_for_a_noisy_host_gives_a_remedy(
    fake_worker: type[FakeWorker], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_worker.means = [1.0, 1.06] * 4
    found = check_host(tmp_path / "log", {}, LENGTHS)
    assert found["sd_pct"] > 2
    assert found["quiet"] is False
    assert "This host is noisy (up to 2 % would be quiet): stop other work" in describe(found)
    assert describe(found) in capsys.readouterr().err


def test_every_process_times_its_windows(fake_worker: type[FakeWorker], tmp_path: Path) -> None:
    check_host(tmp_path / "log", {}, LENGTHS)
    assert fake_worker.asked == [WINDOWS] * PROCESSES
    check_host(tmp_path / "log", {}, LENGTHS)
    assert fake_worker.asked == [WINDOWS] * PROCESSES  # the log is complete


def test_an_interrupted_check_resumes(fake_worker: type[FakeWorker], tmp_path: Path) -> None:
    log = tmp_path / "log"
    first = [window(mean) for mean in (1.0, 1.1, 1.2)]
    log.write_text("".join(f"{json.dumps(row)}\n" for row in first))
    found = check_host(log, {}, LENGTHS)
    assert fake_worker.asked == [1, 4]
    rows = [{key: value for key, value in row.items() if key != "seconds"} for row in read_jsonl(log)]
    assert rows == first + [window(1.0)] * 5
    assert found["windows"] == 8
    assert found["largest_pct"] == 20.0


def test_a_death_loses_only_its_window(fake_worker: type[FakeWorker], tmp_path: Path) -> None:
    fake_worker.means = [1.0, 1.0, None, *[1.0] * 6]
    assert check_host(tmp_path / "log", {}, LENGTHS)["windows"] == 8
    assert fake_worker.asked == [3, 2, 4]
    fake_worker.means = [None] * 3
    with pytest.raises(KdnasError, match="A/A check: the measuring process died 3 times"):
        check_host(tmp_path / "other", {}, LENGTHS)
