"""Does `kdnas latency-table --validate` survive kill -9 at random moments, with nothing lost and nothing measured twice?

Run as `python tests/bench/kill_latency_table.py [KILLS] [WITHIN_SECONDS]`: starts the command, kills it with all its children
at a random time, checks every log, and starts it again. Nine kills in ten come within WITHIN_SECONDS of its first new line, one
in ten within WITHIN_SECONDS of its start. The last run completes. Prints the results; the exit code is 1 if a finished line was
lost or something was measured twice.

The command is the real one except for the processes that time models: they answer within `WINDOW_SECONDS`, with times computed
from FLOPs. The command is forked from a process with loaded libraries, which saves more than ten seconds per kill.
"""

import math
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Self

import torch  # noqa: F401
import transformers  # noqa: F401
from forked_command import start, write_corpus

import kdnas.latency.process
import kdnas.latency.run
import kdnas.latency.validate
from kdnas.latency.engines import REFERENCE
from kdnas.models.arch import Arch
from kdnas.models.table import read_rows
from kdnas.store.artifact import ATTEMPTS, Artifact
from kdnas.store.host import host_line
from kdnas.store.json_files import read_jsonl

WINDOW_SECONDS = 0.1  # at most
MINUTES_A_KILL = 0.03
TEACHER = Arch(6, 12, 384, 1536, "gelu")


class QuickWorker:
    """Worker that answers like `kdnas.latency.worker`, from FLOPs with a little noise."""

    def __init__(self, setup: dict[str, Any]) -> None:
        self._lengths = setup["lengths"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def start(self) -> None:
        return

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        name = request["arch"]
        arch = TEACHER if name == "teacher" else Arch.parse(name)
        time.sleep(random.uniform(0, WINDOW_SECONDS))
        if "sentences" in request:
            level = _ms(REFERENCE, 21)
            values = [_noisy(_ms(arch, length) / level) for length in request["sentences"]]
            return {"arch": name, "in_references": values, "reference_ms": level, "again": 0}
        sweeps = [[_noisy(_ms(arch, length)) for length in self._lengths] for _ in range(3)]
        return {"arch": name, "times_ms": sweeps, "references_ms": [_noisy(_ms(REFERENCE, 21)) for _ in range(4)]}


def _ms(arch: Arch, length: int) -> float:
    return 0.1 * arch.layers + arch.flops(length) / 1e8


def _noisy(value: float) -> float:
    return round(value * math.exp(random.gauss(0, 0.01)), 5)


def log_files(home: Path) -> list[Path]:
    """Logs of the measurements."""
    return [file for file in home.rglob("*.jsonl") if file.name != ATTEMPTS]


def logs(home: Path) -> dict[str, bytes]:
    """Complete lines of every log, by the path of the log in the finished artifact."""
    found = {}
    for file in log_files(home):
        content = file.read_bytes()
        found[str(file.relative_to(home)).replace(".partial", "")] = content[: content.rfind(b"\n") + 1]
    return found


def repeats(home: Path) -> list[str]:
    """Entries that occur more than once in a log."""
    keys = {
        "samples.jsonl": lambda row: row["number"],
        "validation.jsonl": lambda row: (row["pass"], row["arch"], row["part"]),
    }
    found = []
    for name, key in keys.items():
        for file in home.rglob(name):
            counts = Counter(map(key, read_jsonl(file)))
            found += [f"{name}: {what} {count} times" for what, count in counts.items() if count > 1]
    return found


def run(options: list[str], seconds: float, home: Path | None = None) -> int | None:
    """Exit code of the command, or None if it was killed after these seconds; with a home, they count from its first new line."""
    before = logs(home) if home else {}
    child = start(options)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if home and logs(home) == before:
            end = time.monotonic() + seconds
        time.sleep(0.01)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def main(kills: int, within: float) -> int:
    """Kill, check and restart; returns the exit code."""
    print(host_line())
    kdnas.latency.process.Worker = QuickWorker  # type: ignore[assignment,misc]
    lost: list[str] = []
    killed, after = 0, Counter[str]()
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        options = ["latency-table", "--minutes", f"{1 + MINUTES_A_KILL * kills:g}", "--peak_seconds", "0"]
        options += ["--validate", "true", "--validation.sentences", "8000", "--home", str(home)]
        options += ["--corpus", str(write_corpus(home / "texts.txt"))]
        before: dict[str, bytes] = {}
        while (
            killed < kills and run(options, random.uniform(0, within), home if random.random() < 0.9 else None) is None
        ):
            killed += 1
            now = logs(home)
            lost += [name for name, content in before.items() if not now.get(name, b"").startswith(content)]
            grown = [name.rpartition("/")[2] for name, content in now.items() if content != before.get(name, b"")]
            after[grown[-1] if grown else "before its first line"] += 1
            before = now
        code = run(options, math.inf)
        now = logs(home)
        lost += [name for name, content in before.items() if not now.get(name, b"").startswith(content)]
        twice = repeats(home)
        tables = [Artifact.load(path.parent) for path in home.glob("latency-table/*/manifest.json")]
        whole = [len(read_rows(table.path / "table.csv")) == 2400 for table in tables]
        lines = {name.rpartition("/")[2]: content.count(b"\n") for name, content in now.items()}
    print(f"{killed} kills, each within {within:g} s; a run had written to {dict(after)}; final lines: {lines}")
    print(
        f"last run: exit {code}, table complete: {whole}; lost: {lost or 'nothing'}; measured twice: {twice or 'nothing'}"
    )
    return int(bool(code or lost or twice or whole != [True]))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 20, float(sys.argv[2]) if len(sys.argv) > 2 else 1.0))
