"""The measuring loop: rounds in fresh worker processes until the time budget is spent, one fsynced line per window."""

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from kdnas.errors import UsageError
from kdnas.latency.adaptive import DESIGN_FIRST, doubtful, reorder
from kdnas.latency.process import Processes, Worker
from kdnas.latency.protocol import LatencyOptions, Lengths, calls_per_length
from kdnas.latency.samples import TEACHER, TEACHER_EVERY, Sample, gather, movement, next_round
from kdnas.latency.template import write_templates
from kdnas.models.teacher import Teacher
from kdnas.store.host import cpus_of_cores
from kdnas.store.json_files import append_jsonl, read_jsonl
from kdnas.store.progress import Stage, say, stage

ROUND_ARCHITECTURES = 60
# Seconds on the fastest host: a window, and the start of a measuring process with its reference.
FASTEST_WINDOW_S, START_S = 0.3, 2.0


class Budget:
    """Time spent by the whole command, in seconds: in earlier attempts according to the log, and since this one started."""

    def __init__(self, options: LatencyOptions, samples: Sequence[Sample], started: float) -> None:
        self.seconds = 60.0 * options.minutes
        self._earlier = sum(float(sample["seconds"]) for sample in samples)
        self._started = self._mark = started

    @property
    def spent(self) -> float:
        return self._earlier + time.monotonic() - self._started

    def charge(self) -> float:
        """Seconds since the last charge."""
        last, self._mark = self._mark, time.monotonic()
        return self._mark - last

    def allows(self, samples: Sequence[Sample]) -> bool:
        """Whether the budget allows one more slow window and the fit."""
        latest = [float(sample["seconds"]) for sample in samples[-20:] if sample["arch"] != TEACHER]
        slow = 2 * sum(latest) / len(latest) if latest else 2.0
        return self.spent + slow + fit_seconds(len(samples)) <= self.seconds


def least_seconds(options: LatencyOptions, measured: int = 0, window_s: float = FASTEST_WINDOW_S) -> float:
    """Minimum seconds of the rest of a table: the windows that the minimum of architectures lacks, and the fit.

    Args:
        options: give the minimum number of architectures.
        measured: number of architectures measured already.
        window_s: seconds per window; by default less than on any host.
    """
    missing = max(0, options.minimum - measured)
    teachers = -(-missing // TEACHER_EVERY)
    return (missing + teachers) * window_s + (START_S if missing else 0.0) + fit_seconds(options.minimum)


def require_minutes(options: LatencyOptions, needed_s: float) -> None:
    """Refuse a time budget that is too small on any host, before it is spent.

    Args:
        options: give the budget.
        needed_s: seconds of the smallest table, with the time spent before it.

    Raises:
        UsageError: the budget is smaller.
    """
    if options.protocol == "fast" and needed_s > 60 * options.minutes:
        least = minutes_of(needed_s)
        raise UsageError(
            f"minutes is {options.minutes:g}: at least {least:g} minutes are needed for the A/A check, {options.minimum} "
            f"architectures and the fit; give --minutes {least:g} or more (measurements are kept)"
        )


def with_enough_minutes(options: LatencyOptions, needed_s: float) -> LatencyOptions:
    """The options, with a longer time budget if the A/A check found this host too slow for the smallest table.

    Args:
        options: give the budget.
        needed_s: seconds of the smallest table on this host, with the time spent before it.
    """
    if needed_s <= 60 * options.minutes:
        return options
    say(
        f"latency-table: this host is slow or busy: {options.minimum} architectures take {minutes_of(needed_s):g} minutes in "
        f"place of {options.minutes:g}; interrupt it to stop (measurements are kept)"
    )
    return replace(options, minutes=minutes_of(needed_s))


def minutes_of(seconds: float) -> float:
    """Minutes, rounded up to a tenth."""
    return math.ceil(10 * seconds / 60) / 10


def fit_seconds(windows: int) -> float:
    """Seconds reserved for the fit and the table."""
    return 10.0 + 0.015 * windows


def worker_setup(folder: Path, teacher: Teacher, lengths: Lengths, options: LatencyOptions) -> dict[str, Any]:
    """The setup line of a worker; writes the graphs that its engine needs into `folder`."""
    graphs, form = folder / "graphs", options.resolved_engine.form
    if form is not None:
        graphs = write_templates(teacher.path, form, graphs)
    return {
        "engine": options.engine,
        "graphs": str(graphs.resolve()),
        "teacher": str(teacher.path.resolve()),
        "threads": options.resolved_threads,
        "cpus": cpus_of_cores(options.resolved_threads) if options.pin else [],
        "seed": options.seed,
        "lengths": lengths.strata.tolist(),
        "same_length_fractions": lengths.fractions.tolist() if calls_per_length(options.engine) == 2 else None,
    }


def measure(
    log: Path,
    setup: dict[str, Any],
    lengths: Lengths,
    order: Sequence[str],
    options: LatencyOptions,
    started: float,
) -> list[Sample]:
    """Measure architectures until the budget or the design ends; returns the whole log.

    Args:
        log: log file, one line per window.
        setup: from `worker_setup`.
        lengths: the sentence lengths.
        order: the design.
        options: give budget and seed.
        started: start of the command, by `time.monotonic`.

    Raises:
        UsageError: the budget is too small for the minimum of architectures.
        KdnasError: the worker died repeatedly.
    """
    samples: list[Sample] = list(read_jsonl(log))
    budget = Budget(options, samples, started)
    processes = Processes("latency-table", setup)
    with stage("latency-table", budget.seconds, budget.spent) as progress:
        while budget.allows(samples):
            names = _names(order, samples, lengths, options)
            if not names:
                break
            processes.run(samples, partial(_round, log, samples, names, options, budget, progress))
        progress.update(budget.seconds)
    require_minimum(samples, options, budget.spent)
    return samples


def _names(order: Sequence[str], samples: Sequence[Sample], lengths: Lengths, options: LatencyOptions) -> list[str]:
    """Names for the next process: from the design, and after enough measurements also promising and doubtful ones."""
    kept = {sample["arch"] for sample in samples if sample["kept"]} - {TEACHER}
    if len(kept) < DESIGN_FIRST:
        return next_round(order, samples, ROUND_ARCHITECTURES, options.seed)
    rng = np.random.default_rng([options.seed, 5, len(samples)])
    measurements = gather(samples, order, lengths, options.minimum)
    again = doubtful(samples, measurements, lengths)[: ROUND_ARCHITECTURES // 3]
    size = ROUND_ARCHITECTURES - len(again)
    names = next_round(reorder(order, measurements, lengths, size, rng), samples, size, options.seed)
    if not names:
        return []
    for name in again:
        names.insert(int(rng.integers(1, len(names) + 1)), name)  # the teacher stays first
    return names


def _round(
    log: Path,
    samples: list[Sample],
    names: Sequence[str],
    options: LatencyOptions,
    budget: Budget,
    progress: Stage,
    worker: Worker,
) -> None:
    """Measure in one process: the teacher, then the architectures of the round, within the budget."""
    process = 1 + max((int(sample["process"]) for sample in samples), default=0)
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
    """Stop early if the budget is clearly too small, instead of spending it."""
    if len(samples) == 8 and fewest_minutes(samples, options, budget.spent) > 1.5 * options.minutes:
        require_minimum(samples, options, budget.spent)


def fewest_minutes(samples: Sequence[Sample], options: LatencyOptions, spent: float) -> float:
    """Estimated minutes for the minimum of architectures, at the speed so far."""
    archs = [float(sample["seconds"]) for sample in samples if sample["arch"] != TEACHER]
    starts = sum(float(sample["seconds"]) for sample in samples) - sum(archs)
    each = sum(archs) / len(archs) if archs else spent
    return (starts + each * options.minimum + fit_seconds(options.minimum)) / 60


def require_minimum(samples: Sequence[Sample], options: LatencyOptions, spent: float) -> None:
    """Raise UsageError if fewer architectures were measured than a table needs."""
    done = len({sample["arch"] for sample in samples} - {TEACHER})
    if done < options.minimum or all(sample["arch"] != TEACHER for sample in samples):
        raise UsageError(
            f"minutes is {options.minutes:g}: only {done} architectures were measured in {spent:.0f} s; at least "
            f"{options.minimum} are needed to predict the others; give at least "
            f"{1.2 * fewest_minutes(samples, options, spent):.1f} minutes on this host"
        )
