"""The measuring loop: rounds in fresh worker processes until the budget is spent, one fsynced line per window."""

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from kdnas.artifact import append_jsonl, read_jsonl
from kdnas.errors import KdnasError, UsageError
from kdnas.progress import Stage, say, stage
from kdnas.teacher import Teacher
from latency.engines import graph_form, needs_graphs
from latency.protocol import LatencyOptions, Lengths
from latency.samples import TEACHER, Sample, movement, next_round
from latency.template import write_templates

ROUND_ARCHITECTURES = 60
ANSWER_SECONDS = 600.0
ATTEMPTS = 3
ROOT = Path(__file__).resolve().parent.parent


class WorkerError(Exception):
    """The worker process ended, or hung, with the reason as far as it is known."""


class Worker:
    """A measuring process behind a pipe. Reading blocks, so the parent takes nothing from the cores meanwhile."""

    def __init__(self, setup: dict[str, Any]) -> None:
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        threads = str(setup["threads"])
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed in __exit__)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "latency.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": threads},
        )
        self._setup = setup

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        """End the process, whatever it is doing; its measurements are with the parent already."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            try:
                if stream is not None:
                    stream.close()
            except BrokenPipeError:
                continue
        self._errors.close()

    def start(self) -> None:
        """Load the libraries and the reference.

        Raises:
            WorkerError: that failed.
        """
        self.ask(self._setup)

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send one line and wait for its answer.

        Raises:
            WorkerError: there will be none.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            ready, _, _ = select.select([self._process.stdout], [], [], ANSWER_SECONDS)
            line = self._process.stdout.readline() if ready else ""
        except BrokenPipeError:
            line, ready = "", [self._process.stdout]
        if not ready:
            raise WorkerError(f"no answer within {ANSWER_SECONDS:.0f} s")
        if not line.endswith("\n"):
            raise WorkerError(self._reason())
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _reason(self) -> str:
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        how = (
            f"killed by signal {-code} (9 is what a system short of memory sends)" if code < 0 else f"exit code {code}"
        )
        return f"{how}; its last words: {lines[-1] if lines else 'none'}"


class Budget:
    """Seconds of the whole command: those in the log of earlier attempts, and those since this one started."""

    def __init__(self, options: LatencyOptions, samples: Sequence[Sample], started: float) -> None:
        self.seconds = 60.0 * options.minutes
        self.earlier = sum(float(sample["seconds"]) for sample in samples)
        self._started = self._mark = started

    @property
    def spent(self) -> float:
        return self.earlier + time.monotonic() - self._started

    def charge(self) -> float:
        """Seconds since the last charge."""
        last, self._mark = self._mark, time.monotonic()
        return self._mark - last

    def allows(self, samples: Sequence[Sample]) -> bool:
        """Whether one more window, a slow one, and the fit still fit in."""
        latest = [float(sample["seconds"]) for sample in samples[-20:] if sample["arch"] != TEACHER]
        slow = 2 * sum(latest) / len(latest) if latest else 2.0
        return self.spent + slow + fit_seconds(len(samples)) <= self.seconds


def fit_seconds(windows: int) -> float:
    """Time kept back for the fit and the table."""
    return 6.0 + 0.01 * windows


def worker_setup(folder: Path, teacher: Teacher, lengths: Lengths, options: LatencyOptions) -> dict[str, Any]:
    """The first line for a worker; graphs that its engine needs are written into `folder`."""
    graphs = folder / "graphs"
    if needs_graphs(options.engine):
        graphs = write_templates(teacher.path, graph_form(options.engine), graphs)
    return {
        "engine": options.engine,
        "graphs": str(graphs.resolve()),
        "teacher": str(teacher.path.resolve()),
        "threads": options.resolved_threads,
        "seed": options.seed,
        "lengths": lengths.strata.tolist(),
    }


def measure(
    log: Path, teacher: Teacher, lengths: Lengths, order: Sequence[str], options: LatencyOptions, started: float
) -> list[Sample]:
    """Measure architectures in the order of the design until the budget or the design ends; returns the whole log.

    Raises:
        UsageError: the budget cannot hold the fewest architectures that a table needs.
        KdnasError: the worker died again and again.
    """
    samples: list[Sample] = list(read_jsonl(log))
    budget = Budget(options, samples, started)
    setup = worker_setup(log.parent, teacher, lengths, options)
    failures = 0
    with stage("latency-table", budget.seconds, budget.earlier) as progress:
        while budget.allows(samples):
            names = next_round(order, samples, ROUND_ARCHITECTURES, options.seed)
            if not names:
                break
            finished = len(samples)
            try:
                _round(log, samples, names, setup, options, budget, progress)
                failures = 0
            except WorkerError as error:
                failures = failures + 1 if len(samples) == finished else 1
                if failures == ATTEMPTS:
                    raise KdnasError(
                        f"latency-table: the measuring process died {ATTEMPTS} times: {error}. "
                        "What was measured is kept; the same command goes on from there"
                    ) from error
                say(f"latency-table: the measuring process died ({error}); a new one goes on")
        progress.update(budget.seconds)
    require_minimum(samples, options, budget.spent)
    return samples


def _round(
    log: Path,
    samples: list[Sample],
    names: Sequence[str],
    setup: dict[str, Any],
    options: LatencyOptions,
    budget: Budget,
    progress: Stage,
) -> None:
    """One process: the teacher, then the architectures of the round, while the budget allows."""
    process = 1 + max((int(sample["process"]) for sample in samples), default=0)
    with Worker(setup) as worker:
        worker.start()
        for name in names:
            if not budget.allows(samples):
                return
            answer = worker.ask({"arch": name})
            moved = movement(answer["references_ms"])
            row = {
                "number": len(samples) + 1,
                "process": process,
                **answer,
                "moved": round(moved, 4),
                "kept": moved <= options.tolerance,
                "seconds": round(budget.charge(), 3),
            }
            append_jsonl(log, row)
            samples.append(row)
            kept = len({sample["arch"] for sample in samples if sample["kept"]} - {TEACHER})
            progress.update(budget.spent, f"{kept} measured, reference {median(answer['references_ms']):.1f} ms")
            _foresee(samples, options, budget)


def _foresee(samples: Sequence[Sample], options: LatencyOptions, budget: Budget) -> None:
    """Stop early where the budget is plainly too small, instead of spending it first."""
    if len(samples) == 8 and fewest_minutes(samples, options, budget.spent) > 1.5 * options.minutes:
        require_minimum(samples, options, budget.spent)


def fewest_minutes(samples: Sequence[Sample], options: LatencyOptions, spent: float) -> float:
    """Estimated minutes that the fewest architectures take, at the speed so far."""
    archs = [float(sample["seconds"]) for sample in samples if sample["arch"] != TEACHER]
    starts = sum(float(sample["seconds"]) for sample in samples) - sum(archs)
    each = sum(archs) / len(archs) if archs else spent
    return (starts + each * options.minimum + fit_seconds(options.minimum)) / 60


def require_minimum(samples: Sequence[Sample], options: LatencyOptions, spent: float) -> None:
    """Raise UsageError where fewer architectures were measured than a table is made of."""
    done = len({sample["arch"] for sample in samples} - {TEACHER})
    if done < options.minimum or all(sample["arch"] != TEACHER for sample in samples):
        raise UsageError(
            f"minutes is {options.minutes:g}: only {done} architectures were measured in {spent:.0f} s, {options.minimum} "
            f"are the least to predict the others from; give at least "
            f"{1.2 * fewest_minutes(samples, options, spent):.1f} minutes on this host"
        )
