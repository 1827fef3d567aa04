"""Evaluation of the log of windows: which are kept, what to measure next, and the resulting latencies."""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kdnas.latency.protocol import Lengths
from kdnas.models.arch import Arch

TEACHER = "teacher"
GIVE_WAY_AFTER = 3
TEACHER_EVERY = 15

Sample = Mapping[str, Any]


@dataclass(frozen=True)
class Measurement:
    """One model's latency, normalised to the reference level of the whole run.

    Args:
        latencies: latencies (K,) in ms at the measured lengths.
        relative_sd: standard error of the mean latency over its repeats and its reference, as a fraction.
    """

    latencies: np.ndarray
    relative_sd: float


@dataclass(frozen=True)
class Measurements:
    """All kept measurements: the architectures in the order of the design, and the teacher.

    Args:
        archs: measured architectures (N).
        latencies: (N, K) ms.
        relative_sd: (N,).
        sweeps: (N,) number of timed sweeps over the lengths behind each measurement.
        teacher: median over the processes.
        level_ms: median reference window of the run, to which all latencies are normalised.
        discarded: windows that were discarded.
        readmitted: discarded windows that were used after all, because too few others were left.
    """

    archs: list[Arch]
    latencies: np.ndarray
    relative_sd: np.ndarray
    sweeps: np.ndarray
    teacher: Measurement
    level_ms: float
    discarded: int
    readmitted: int


def movement(references_ms: Sequence[float]) -> float:
    """Movement of the reference during a window: its second largest deviation from its median, as a fraction of the median.

    Each sweep is compared with its neighbouring references, so one move between two sweeps has little effect, but several do.
    """
    middle = statistics.median(references_ms)
    deviations = sorted(abs(value / middle - 1) for value in references_ms)
    return deviations[-2] if len(deviations) > 2 else deviations[-1]


def next_round(order: Sequence[str], samples: Sequence[Sample], size: int, seed: int) -> list[str]:
    """Names for the next process: the first of the design without a kept window, shuffled, with the teacher at intervals.

    Architectures that were discarded several times come after the others. Empty if nothing is left.
    """
    kept = {sample["arch"] for sample in samples if sample["kept"]}
    discards = Counter(sample["arch"] for sample in samples if not sample["kept"])
    waiting = [name for name in order if name not in kept]
    waiting.sort(key=lambda name: discards[name] >= GIVE_WAY_AFTER)  # the sort is stable
    if not waiting:
        return []
    rng = np.random.default_rng([seed, 3, len(samples)])
    names = [waiting[index] for index in rng.permutation(min(size, len(waiting)))]
    for index in range(0, len(names), TEACHER_EVERY)[::-1]:
        names.insert(index, TEACHER)
    return names


def admitted(samples: Sequence[Sample], minimum: int) -> tuple[dict[str, list[Sample]], int]:
    """Windows to use, by name, and the number of discarded ones among them.

    Discarded windows are readmitted only if fewer than `minimum` architectures, or no teacher, would be left, and only as many as
    needed, those with the smallest movement of the reference first.
    """
    chosen: dict[str, list[Sample]] = {}
    for sample in samples:
        if sample["kept"]:
            chosen.setdefault(sample["arch"], []).append(sample)
    readmitted = 0
    for sample in sorted((s for s in samples if not s["kept"]), key=lambda s: s["moved"]):
        name = sample["arch"]
        missing = name == TEACHER or len(chosen.keys() - {TEACHER}) < minimum
        if name not in chosen and missing:
            chosen[name] = [sample]
            readmitted += 1
    return chosen, readmitted


def gather(samples: Sequence[Sample], order: Sequence[str], lengths: Lengths, minimum: int) -> Measurements:
    """Turn the log into latencies at one reference level: time / neighbouring reference * median reference of the run."""
    chosen, readmitted = admitted(samples, minimum)
    level = statistics.median(_reference(s) for windows in chosen.values() for s in windows)
    found = {
        name: combine([normalise(s, level, lengths) for s in windows], lengths) for name, windows in chosen.items()
    }
    names = [name for name in order if name in found]
    return Measurements(
        archs=[Arch.parse(name) for name in names],
        latencies=np.stack([found[name].latencies for name in names]),
        relative_sd=np.array([found[name].relative_sd for name in names]),
        sweeps=np.array([sum(len(window["times_ms"]) for window in chosen[name]) for name in names], dtype=np.int64),
        teacher=found[TEACHER],
        level_ms=level,
        discarded=sum(not sample["kept"] for sample in samples),
        readmitted=readmitted,
    )


def _reference(sample: Sample) -> float:
    return float(statistics.median(sample["references_ms"]))


def normalise(sample: Sample, level_ms: float, lengths: Lengths) -> Measurement:
    """One window at the reference level `level_ms`: each sweep over the reference on both sides of it, median of the sweeps.

    The standard error is that of the median over the sweeps (1.2533 sd / sqrt n); it includes the reference's noise.
    """
    references = np.array(sample["references_ms"], dtype=np.float64)  # (R + 1,)
    beside = (references[:-1] + references[1:]) / 2
    times = np.array(sample["times_ms"], dtype=np.float64) / beside[:, None] * level_ms  # (R, K)
    sweeps = lengths.mean(times)
    error = 1.2533 * sweeps.std(ddof=1) / np.sqrt(len(sweeps)) / np.median(sweeps) if len(sweeps) > 1 else 0.0
    return Measurement(np.median(times, axis=0), float(error))


def combine(windows: Sequence[Measurement], lengths: Lengths) -> Measurement:
    """Median over the windows of one model."""
    if len(windows) == 1:
        return windows[0]
    latencies = np.stack([window.latencies for window in windows])
    means = lengths.mean(latencies)
    return Measurement(
        np.median(latencies, axis=0), float(1.2533 * means.std(ddof=1) / np.sqrt(len(means)) / np.median(means))
    )
