"""The published protocol: every architecture on every sentence at batch 1, three runs; and the paper's Table 2."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from kdnas.latency.exhaustive import Passes, PassRow, measure_passes, runs_of
from kdnas.latency.process import Processes, Worker
from kdnas.latency.protocol import RUNS, WARM_CALLS, LatencyOptions, Lengths, design
from kdnas.latency.samples import TEACHER, Measurement, Measurements, Sample
from kdnas.latency.timing import CHUNK, REFERENCE_CALLS, REFERENCE_WARM_CALLS
from kdnas.models.arch import Arch, SearchSpace
from kdnas.store.json_files import append_jsonl, read_jsonl
from kdnas.store.progress import say

PILOT = 8  # architectures for the time estimate
CHUNK_TOLERANCE = 0.1

# Table 2 of arXiv 2303.09639: milliseconds on four CPU cores, at batch 1.
TABLE2_CPU_MS = {
    "KDNASArch1": (Arch(3, 12, 384, 1024), 5.97),
    "KDNASArch2": (Arch(4, 4, 288, 768), 6.12),
    "KDNASArch3": (Arch(4, 12, 576, 768), 9.19),
    "6L-384H": (Arch(6, 12, 384, 1536), 12.41),
    "6L-768H": (Arch(6, 12, 768, 3072), 33.21),
    "Teacher": (Arch(12, 12, 768, 3072), 64.98),
}


def table2_archs() -> list[Arch]:
    """The students of Table 2."""
    return [arch for name, (arch, _) in TABLE2_CPU_MS.items() if name != "Teacher"]


def table2_ratios() -> dict[str, tuple[Arch, float]]:
    """Map each name in Table 2 to its architecture and its latency as a fraction of the teacher's."""
    teacher_ms = TABLE2_CPU_MS["Teacher"][1]
    return {name: (arch, ms / teacher_ms) for name, (arch, ms) in TABLE2_CPU_MS.items() if name != "Teacher"}


def measure_all(
    folder: Path, setup: dict[str, Any], sample: np.ndarray, lengths: Lengths, options: LatencyOptions
) -> tuple[Measurements, float]:
    """Measure the space, or its first `max_architectures` in the design's order, by the published protocol.

    Args:
        folder: working folder; the log of an interrupted run in it is resumed.
        setup: from `worker_setup`.
        sample: tokens (S,) of each sentence.
        lengths: every distinct length of the sample.
        options: give sentences, seed and limit.

    Returns:
        The measurements at every distinct length, and the seconds that they took.

    Raises:
        KdnasError: the measuring process died repeatedly.
    """
    archs = list(SearchSpace())
    if options.max_architectures is not None:
        archs = design(options.seed)[: options.max_architectures]
    names = [TEACHER, *map(str, archs)]
    order = np.random.default_rng([options.seed, 6]).permutation(sample)
    passes = Passes(names, order, RUNS, CHUNK_TOLERANCE, options.seed)
    log = folder / "samples.jsonl"
    left = len(passes.missing(read_jsonl(log))) / (RUNS * len(names) * len(passes.parts))
    part = passes.parts[0]
    warm_ups = len(set(part)) / len(part)  # each part runs each of its lengths once, untimed
    calls = len(names) * len(sample) * RUNS * (1 + warm_ups)
    hours = estimated_hours(folder / "pilot.jsonl", setup, calls)
    say(
        f"latency-table: paper protocol: {len(names)} models x {len(sample)} sentences x {RUNS} runs: about {hours:.2g} hours "
        f"on this host, {left * hours:.2g} of them left; to resume after an interruption, repeat the command"
    )
    rows = measure_passes(log, "latency-table", setup, passes)
    seconds = sum(float(row["seconds"]) for row in rows)
    return gather_passes(rows, archs, order, lengths), seconds


def estimated_hours(log: Path, setup: dict[str, Any], calls: float) -> float:
    """Estimated hours of `calls` calls, from windows of some architectures of the design and their references."""
    rows: list[Sample] = list(read_jsonl(log))
    names = [str(arch) for arch in design(int(setup["seed"]))[:PILOT]]
    processes = Processes("latency-table: estimate", setup)
    while len(rows) < PILOT:
        processes.run(rows, partial(_pilot, log, rows, names))
    mean_ms = float(np.mean([np.mean(row["times_ms"]) for row in rows]))
    reference_ms = float(np.median([value for row in rows for value in row["references_ms"]]))
    around_ms = (WARM_CALLS * mean_ms + (REFERENCE_WARM_CALLS + REFERENCE_CALLS) * reference_ms) / CHUNK
    return calls * (mean_ms + around_ms) / 3.6e6


def _pilot(log: Path, rows: list[Sample], names: Sequence[str], worker: Worker) -> None:
    for name in names[len(rows) :]:
        row = worker.ask({"arch": name})
        append_jsonl(log, row)
        rows.append(row)


def gather_passes(rows: Sequence[PassRow], archs: list[Arch], sample: np.ndarray, lengths: Lengths) -> Measurements:
    """Latencies of the log at every distinct length: median over a sentence's runs, mean over a length's sentences."""
    level = float(np.median([row["reference_ms"] for row in rows]))
    found = [_one(runs_of(rows, name) * level, sample, lengths) for name in (TEACHER, *map(str, archs))]
    return Measurements(
        archs=archs,
        latencies=np.stack([one.latencies for one in found[1:]]),
        relative_sd=np.array([one.relative_sd for one in found[1:]]),
        sweeps=np.full(len(archs), RUNS),
        teacher=found[0],
        level_ms=level,
        discarded=sum(int(row["again"]) for row in rows),
        readmitted=0,
    )


def _one(runs: np.ndarray, sample: np.ndarray, lengths: Lengths) -> Measurement:
    """One model's measurement from runs (R, S) in ms over sentences of the lengths `sample` (S,)."""
    middle = np.median(runs, axis=0)
    indices = np.searchsorted(lengths.values, sample)
    latencies = np.bincount(indices, weights=middle) / np.bincount(indices)
    means = runs.mean(axis=1)
    return Measurement(latencies, float(means.std(ddof=1) / np.sqrt(len(means)) / means.mean()))
