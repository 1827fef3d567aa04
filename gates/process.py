"""One fresh process of a side: all benchmarks of a suite by pytest-benchmark."""

import json
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdnas.gates.sides import LINES, Side

LOWER = 0.1  # quantile of a process's rounds, reported as its result
PLUGIN = Path(__file__).resolve().parent / "plugin"


class SideError(Exception):
    """A process crashed, ran too long, or a benchmark failed in it; the message ends with its last lines of output."""


@dataclass(frozen=True)
class Timed:
    """Results of one process.

    Args:
        seconds: lower decile of the rounds of each benchmark. Interruptions only make rounds slower, so lower deciles of two
            processes agree better than their medians (`results/gates`).
        machine: host and packages; they must be equal for processes that are compared.
        report: the full JSON of pytest-benchmark.
    """

    seconds: dict[str, float]
    machine: dict[str, Any]
    report: dict[str, Any]


@dataclass(frozen=True)
class SuiteOptions:
    """Durations of a process and of a benchmark.

    Args:
        benchmark_seconds: minimum seconds per benchmark (max-time of pytest-benchmark).
        rounds: minimum number of rounds per benchmark.
        timeout_seconds: maximum seconds of a process.
    """

    benchmark_seconds: float = 0.4
    rounds: int = 5
    timeout_seconds: float = 300.0

    def __post_init__(self) -> None:
        from kdnas.errors import UsageError

        if not (self.benchmark_seconds > 0 and self.timeout_seconds > 0 and self.rounds > 0):
            raise UsageError("benchmark_seconds, rounds and timeout_seconds must be above 0")


def run_process(
    side: Side, suite: Path, cache: Path, options: SuiteOptions, only: tuple[str, ...] | None = None
) -> Timed:
    """Run a suite once.

    Args:
        side: side whose code or model is timed.
        suite: file or folder with pytest-benchmark benchmarks.
        cache: folder that all processes of this side share, for example for a model that is built once.
        options: durations of a process and of a benchmark.
        only: names of benchmarks; None runs all.

    Raises:
        SideError: the process gave no result.
    """
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [
            str(side.python), "-m", "pytest", str(suite), "-q", "-p", "no:cacheprovider", "-p", "no:xdist",
            "-p", "no:hypothesispytest", "-p", "no:anyio", "-p", "no:schemathesis", "--assert=plain", "--tb=line",
            "-p", PLUGIN_NAME,
            "--rootdir", str(suite if suite.is_dir() else suite.parent), "--import-mode", "importlib", "--benchmark-only",
            "--benchmark-json", str(report), f"--benchmark-max-time={options.benchmark_seconds}",
            f"--benchmark-min-rounds={options.rounds}", "--benchmark-disable-gc", "--benchmark-quiet", "-o", "addopts=",
        ]  # fmt: skip
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=options.timeout_seconds,
                env=_environment(side, cache, only),
                cwd=cache,
            )
        except subprocess.TimeoutExpired as error:
            raise SideError(
                f"{side.name}: not finished within {options.timeout_seconds:g} s (timeout_seconds)"
            ) from error
        if done.returncode or not report.is_file():
            output = "\n".join((done.stdout + done.stderr).strip().splitlines()[-LINES:])
            raise SideError(f"{side.name}: pytest ended with {done.returncode}\n{output}")
        return read_report(json.loads(report.read_text()))


PLUGIN_NAME = "kdnas_gate_host"


def read_report(report: dict[str, Any]) -> Timed:
    """Read a report of pytest-benchmark.

    Raises:
        SideError: two benchmarks have the same name.
    """
    names = [row["name"] for row in report["benchmarks"]]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SideError(f"{', '.join(twice)}: more than one benchmark of the suite has this name; rename them")
    seconds = {row["name"]: float(np.quantile(row["stats"]["data"], LOWER)) for row in report["benchmarks"]}
    machine = report["machine_info"].get("kdnas") or {"cpu": report["machine_info"]["cpu"].get("brand_raw")}
    return Timed(seconds, machine, report)


def _environment(side: Side, cache: Path, only: tuple[str, ...] | None) -> dict[str, str]:
    path = [str(side.tree)] if side.tree else []
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    found = {**inherited, "PYTHONPATH": os.pathsep.join([*path, str(PLUGIN)]), "KDNAS_GATE_CACHE": str(cache)}
    found.setdefault("OMP_WAIT_POLICY", "passive")
    for name in ("KDNAS_GATE_MODEL", "KDNAS_GATE_ONLY"):
        found.pop(name, None)
    if only is not None:
        found["KDNAS_GATE_ONLY"] = json.dumps(only)
    if side.model is not None:
        found["KDNAS_GATE_MODEL"] = str(side.model)
    return found
