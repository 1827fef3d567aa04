"""History: steps by hand, hosts that change, and the page of a real record."""

from pathlib import Path

import numpy as np
import pytest

from kdnas.errors import UsageError
from kdnas.gates.history import FILE, PAGE, find_step, gate_history, steps_of, works_of
from kdnas.gates.process import SuiteOptions
from kdnas.store.artifact import append_jsonl, read_jsonl

MACHINE = {"cpu": "a", "cores": 2}


def rows_of(seconds: list[float], peaks: list[float], machine: dict[str, object] = MACHINE) -> list[dict[str, object]]:
    return [
        {
            "time": f"2026-01-{n + 1:02}",
            "commit": f"{n:040}",
            "peak_gflops": p,
            "seconds": {"session": s},
            "machine": machine,
        }
        for n, (s, p) in enumerate(zip(seconds, peaks, strict=True))
    ]


def test_a_step_is_found_where_it_is() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.01, 24)
    assert find_step(noise) is None
    step = find_step(noise + np.where(np.arange(24) >= 15, np.log(1.1), 0))
    assert step is not None
    assert step.place == 15
    assert step.ratio == pytest.approx(1.1, rel=0.02)
    assert find_step(np.zeros(7)) is None
    small = find_step(noise / 10 + np.where(np.arange(24) >= 15, np.log(1.03), 0))
    assert small is None  # found, and too small to be told


def test_a_slow_hour_is_no_step_and_another_host_is_left_out() -> None:
    slow = [1.0] * 10 + [2.0] * 10
    assert steps_of(rows_of(slow, [100.0] * 10 + [50.0] * 10)) == {}  # type: ignore[arg-type]
    found = steps_of(rows_of(slow, [100.0] * 20))  # type: ignore[arg-type]
    assert found["session"].place == 10
    assert found["session"].ratio == pytest.approx(2)
    others = rows_of([9.0] * 6, [100.0] * 6, {"cpu": "b", "cores": 2})
    rows = [*others, *rows_of([1.0] * 10, [100.0] * 10)]
    assert np.isnan(works_of(rows, "session")[:6]).all()  # type: ignore[arg-type]
    assert steps_of(rows) == {}  # type: ignore[arg-type]


def test_a_real_record_and_its_page(tmp_path: Path) -> None:
    suite = tmp_path / "suite.py"
    suite.write_text("def test_adding(benchmark):\n    benchmark(sum, range(1000))\n")
    options = SuiteOptions(benchmark_seconds=0.05, rounds=2)
    folder = tmp_path / "history"
    gate_history(folder, suite, options=options, home=tmp_path)
    (row,) = read_jsonl(folder / FILE)
    assert row["peak_gflops"] > 1
    assert 0 < row["seconds"]["test_adding"] < 1
    for _ in range(9):
        append_jsonl(folder / FILE, {**row, "seconds": {"test_adding": 3 * row["seconds"]["test_adding"]}})
    for _ in range(9):
        append_jsonl(folder / FILE, row)
    (line,) = gate_history(folder, measure=False).results["steps"]
    assert "test_adding: 0.333 times the work, faster since" in line
    assert "A step to 0.333 times the work" in (folder / PAGE).read_text()


def test_an_empty_history(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no history yet"):
        gate_history(tmp_path, measure=False)
