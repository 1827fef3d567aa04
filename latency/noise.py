"""The A/A check before a table: one model timed as if it were several. The differences are the host's noise."""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from kdnas.latency.process import Processes, Worker
from kdnas.latency.protocol import Lengths
from kdnas.latency.samples import Sample, normalise
from kdnas.models.arch import Arch
from kdnas.store.json_files import append_jsonl, read_jsonl
from kdnas.store.progress import Stage, say, stage

MODEL = Arch(6, 4, 576, 1024, "gelu")  # in the middle of the space
PROCESSES, WINDOWS = 2, 4  # fresh processes, and windows of a fresh model in each
QUIET_SD = 0.02  # largest relative standard deviation of windows on a host without noise
LARGEST_OF_59 = 2.6  # expected largest of 59 normal errors, in standard deviations


def check_host(log: Path, setup: dict[str, Any], lengths: Lengths) -> dict[str, Any]:
    """Time one architecture in several processes and estimate the error bound of a table.

    A table combines each window with a held-out prediction, and a validation is the median of six passes. Their joint error is
    about that of one window, so the bound, the largest of 59 errors, is about 2.6 of a window's standard deviations.

    Args:
        log: log of finished windows; new ones are appended.
        setup: setup line of a measuring process.
        lengths: the sentence lengths.

    Returns:
        The differences of windows in percent, and the expected bound, for the manifest.

    Raises:
        KdnasError: the measuring process died repeatedly.
    """
    rows: list[Sample] = list(read_jsonl(log))
    processes = Processes("latency-table: A/A check", setup)
    with stage("latency-table: A/A check", PROCESSES * WINDOWS, len(rows)) as progress:
        while len(rows) < PROCESSES * WINDOWS:
            processes.run(rows, partial(_windows, log, rows, progress))
    found = {**spread(rows, lengths), "quiet": True}
    found["quiet"] = found["sd_pct"] <= 100 * QUIET_SD
    say(f"latency-table: {describe(found)}")
    return found


def _windows(log: Path, rows: list[Sample], progress: Stage, worker: Worker) -> None:
    """Measure the windows of one process."""
    for _ in range(WINDOWS - len(rows) % WINDOWS):
        start = time.monotonic()
        row = {**worker.ask({"arch": str(MODEL)}), "seconds": round(time.monotonic() - start, 3)}
        append_jsonl(log, row)
        rows.append(row)
        progress.advance()


def spread(rows: Sequence[Sample], lengths: Lengths) -> dict[str, Any]:
    """Standard deviation and largest difference of windows of one model in percent, and the expected bound."""
    means = np.log([float(lengths.mean(normalise(row, 1.0, lengths).latencies)) for row in rows])
    sd = float(means.std(ddof=1))
    return {
        "windows": len(rows),
        "sd_pct": round(100 * sd, 2),
        "largest_pct": round(100 * float(np.expm1(means.max() - means.min())), 2),
        "expected_bound_pct": round(100 * LARGEST_OF_59 * sd, 1),
    }


def describe(found: dict[str, Any]) -> str:
    """The result of the check as a sentence."""
    noise = (
        "" if found["quiet"] else f". This host is noisy (up to {100 * QUIET_SD:g} % would be quiet): stop other work"
    )
    return (
        f"A/A check: {found['windows']} windows of one model, in {PROCESSES} processes, differ by {found['sd_pct']:g} % "
        f"(standard deviation; largest {found['largest_pct']:g} %): expect a bound of about "
        f"{found['expected_bound_pct']:g} %{noise}"
    )
