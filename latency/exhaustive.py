"""The exhaustive protocol: every sentence in every architecture, run by run, with one fsynced line per part."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdnas.latency.process import Processes, Worker
from kdnas.store.json_files import append_jsonl, read_jsonl
from kdnas.store.progress import Stage, stage

PART = 500  # sentences per line: the most that a kill can lose
PROCESS_ARCHITECTURES = 60  # architectures per process; then a fresh process continues

PassRow = Mapping[str, Any]


@dataclass(frozen=True)
class Passes:
    """The work of an exhaustive measurement.

    Args:
        names: architectures, and `teacher`.
        lengths: tokens (S,) of each sentence, in the order in which they run.
        count: number of runs of each sentence in each architecture.
        tolerance: repeat a chunk if the reference moved by more than this fraction during the chunk.
        seed: seed of the order of the architectures.
    """

    names: Sequence[str]
    lengths: np.ndarray
    count: int
    tolerance: float
    seed: int

    @property
    def parts(self) -> list[list[int]]:
        """Lengths of the sentences of each part."""
        return [self.lengths[first : first + PART].tolist() for first in range(0, len(self.lengths), PART)]

    def missing(self, rows: Sequence[PassRow]) -> list[tuple[int, str, int]]:
        """(pass, name, part) of the remaining measurements, in order; each pass has a different random order."""
        done = {(row["pass"], row["arch"], row["part"]) for row in rows}
        parts = range(len(self.parts))
        wanted = []
        for number in range(self.count):
            order = np.random.default_rng([self.seed, 4, number]).permutation(np.array(self.names))
            wanted += [(number, str(name), part) for name in order for part in parts]
        return [what for what in wanted if what not in done]


def measure_passes(log: Path, what: str, setup: dict[str, Any], passes: Passes) -> list[PassRow]:
    """Measure all passes, or resume an interrupted run; no two passes share a process.

    Raises:
        KdnasError: the measuring process died repeatedly.
    """
    rows: list[PassRow] = list(read_jsonl(log))
    processes = Processes(what, setup)
    total = passes.count * len(passes.names) * len(passes.parts)
    with stage(what, total, len(rows)) as progress:
        while missing := passes.missing(rows):
            mine = _one_process(missing)
            processes.run(rows, _asking(log, rows, passes, mine, progress))
    return rows


def _one_process(missing: Sequence[tuple[int, str, int]]) -> list[tuple[int, str, int]]:
    """The first architectures of the first unfinished pass."""
    first = [one for one in missing if one[0] == missing[0][0]]
    names = list(dict.fromkeys(name for _, name, _ in first))[:PROCESS_ARCHITECTURES]
    return [one for one in first if one[1] in names]


def _asking(
    log: Path, rows: list[PassRow], passes: Passes, mine: Sequence[tuple[int, str, int]], progress: Stage
) -> Callable[[Worker], None]:
    def ask(worker: Worker) -> None:
        for number, name, part in mine:
            start = time.monotonic()
            answer = worker.ask({"arch": name, "sentences": passes.parts[part], "tolerance": passes.tolerance})
            row = {"pass": number, "part": part, **answer, "seconds": round(time.monotonic() - start, 3)}
            append_jsonl(log, row)
            rows.append(row)
            progress.update(len(rows), f"run {number + 1} of {passes.count}")

    return ask


def runs_of(rows: Sequence[PassRow], name: str) -> np.ndarray:
    """Latencies (count, S) of each sentence in each run, in units of the reference window."""
    mine = sorted((row for row in rows if row["arch"] == name), key=lambda row: (row["pass"], row["part"]))
    runs: dict[int, list[float]] = {}
    for row in mine:
        runs.setdefault(row["pass"], []).extend(row["in_references"])
    return np.array([runs[number] for number in sorted(runs)])
