"""The error bound of a table: held-out architectures, measured sentence by sentence, against the table's predictions."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdnas.errors import UsageError
from kdnas.latency.exhaustive import Passes, measure_passes, runs_of
from kdnas.latency.measure import worker_setup
from kdnas.latency.protocol import (
    HELD_OUT,
    RUNS,
    SENTENCES,
    WARM_CALLS,
    LatencyOptions,
    held_out,
    length_step,
    padded,
    sample_lengths,
    stratify,
)
from kdnas.models.arch import Arch
from kdnas.models.table import KIND as TABLE
from kdnas.models.table import PREDICTED, LatencyTable
from kdnas.models.teacher import Teacher
from kdnas.store.artifact import Artifact, build
from kdnas.text.corpus import Corpus

KIND = "latency-validation"
LOG = "validation.jsonl"


@dataclass(frozen=True)
class ValidationOptions:
    """Options of the validation of a table.

    Args:
        sentences: number of sentences, spread evenly over the table's lengths; fewer take less time.
        tolerance: repeat a chunk if the reference moved by more than this fraction during the chunk.
        runs: runs per measurement, 3 in the publication. Two measurements are made, to estimate the repeatability of the
            protocol; on a noisy host more runs separate the table's error from the noise.
        seed: draws 59 of the table's predicted architectures; null takes the 59 that are the same for all tables. The fixed
            ones served to improve the method, so a claim about a table needs a seed that was never used before.
    """

    sentences: int = 200
    tolerance: float = 0.1
    runs: int = RUNS
    seed: int | None = None

    @property
    def passes(self) -> int:
        """Number of runs of both measurements together."""
        return 2 * self.runs

    def __post_init__(self) -> None:
        if not RUNS <= self.runs <= 1000:
            raise UsageError(f"runs is {self.runs}; allowed are {RUNS} (as published) to 1000")
        if not 50 <= self.sentences <= SENTENCES:
            raise UsageError(f"sentences is {self.sentences}; allowed are 50 to {SENTENCES}")
        if not 0 < self.tolerance < 1:
            raise UsageError(f"tolerance is {self.tolerance}; it must be between 0 and 1")
        if self.seed is not None and self.seed < 0:
            raise UsageError(f"seed is {self.seed}; it must be at least 0")


def run_validation(
    home: Path,
    table: Artifact,
    teacher: Teacher,
    corpus: Corpus,
    options: LatencyOptions,
    validation: ValidationOptions,
) -> Artifact:
    """Measure the held-out architectures by the exhaustive protocol, and compare a finished table with them.

    Each pass runs every architecture over all sentences once, in a separate process and a random order. Odd passes form one
    measurement by the published protocol, even passes a second one; no table can be better than their difference.

    Args:
        home: root of artifacts.
        table: from `build_table`, with the same teacher, corpus and options.
        teacher: the reference.
        corpus: its training sentences give the lengths.
        options: options of the table.
        validation: validation options.

    Raises:
        UsageError: `table` is not a latency table, or it predicts too few architectures for a seed to draw from.
        KdnasError: the measuring process died repeatedly.
    """
    if table.manifest["kind"] != TABLE:
        raise UsageError(f"{table.path}: a '{table.manifest['kind']}' artifact; a latency table is needed")
    archs = validated(LatencyTable.of(table), validation.seed)
    config: dict[str, Any] = {
        "engine": options.engine,
        "options": validation,
        "held_out": [str(arch) for arch in archs],
    }
    config |= {"host": table.manifest["config"]["host"], "warm_calls": WARM_CALLS}

    def work(folder: Path) -> dict[str, Any]:
        return _work(folder, table, archs, teacher, corpus, options, validation)

    return build(home, KIND, f"{teacher.label}-{options.engine}", config, {TABLE: table.digest}, work)


def validated(table: LatencyTable, seed: int | None) -> list[Arch]:
    """The architectures of a validation, in order of id.

    Args:
        table: the finished table.
        seed: as in `ValidationOptions`.

    Raises:
        UsageError: a seed is given, and fewer than 59 rows of the table are predicted.
    """
    if seed is None:
        return held_out()
    predicted = [row.arch for row in table.rows if row.source == PREDICTED]
    if len(predicted) < HELD_OUT:
        raise UsageError(
            f"--validation.seed draws {HELD_OUT} predicted architectures, but this table predicts {len(predicted)} and "
            f"measured the others; without the option, the {HELD_OUT} fixed architectures are validated"
        )
    chosen = np.random.default_rng(seed).choice(len(predicted), HELD_OUT, replace=False)
    return [predicted[index] for index in sorted(chosen)]


def _work(
    folder: Path,
    table: Artifact,
    archs: Sequence[Arch],
    teacher: Teacher,
    corpus: Corpus,
    options: LatencyOptions,
    validation: ValidationOptions,
) -> dict[str, Any]:
    step = length_step(options.engine)
    everything = padded(sample_lengths(corpus.train.lengths, options.seed, options.sentences), step)
    lengths = evenly(everything, validation.sentences)
    setup = worker_setup(folder, teacher, stratify(everything, step=step), options)
    names = [str(arch) for arch in archs]
    passes = Passes(names, lengths, validation.passes, validation.tolerance, options.seed)
    rows = measure_passes(folder / LOG, "latency-validation", setup, passes)
    finished = LatencyTable.of(table)
    level = float(table.results["reference_level_ms"])
    runs = np.stack([runs_of(rows, name) for name in names])  # (59, passes, S), in reference windows
    whole = np.median(runs, axis=1)
    first, second = (np.median(runs[:, half::2], axis=1).mean(axis=1) for half in (0, 1))
    truth = whole.mean(axis=1) * level
    predicted = np.array([finished.latency_ms(arch) for arch in archs])
    repeats = first / second - 1
    errors = predicted / truth - 1
    _write_csv(folder / "validation.csv", archs, truth, predicted, errors, repeats)
    return {
        "engine": options.engine,
        "sentences": len(lengths),
        "runs": validation.runs,
        "seed": validation.seed,
        "seconds": round(sum(float(row["seconds"]) for row in rows), 1),
        "bound_pct": _percent(np.abs(errors).max()),
        "median_abs_pct": _percent(np.median(np.abs(errors))),
        "kendall_tau": kendall_tau(predicted, truth),
        "repeatability_pct": _percent(np.abs(repeats).max()),
        "repeatability_median_pct": _percent(np.median(np.abs(repeats))),
        "repeatability_tau": kendall_tau(first, second),
        "sampling_error_pct": _percent(max(sampling_error(values, lengths, everything) for values in whole)),
        **{key: table.results[key] for key in ("exhaustive_hours", "times_cheaper")},
        "table_minutes": table.results["minutes"],
    }


def evenly(lengths: np.ndarray, sentences: int) -> np.ndarray:
    """Lengths of `sentences` sentences evenly spread over the sorted lengths (N,), in a fixed random order."""
    ordered = np.sort(lengths)
    indices = ((np.arange(sentences) + 0.5) * len(ordered) / sentences).astype(int)
    return np.asarray(np.random.default_rng(0).permutation(ordered[indices]))


def sampling_error(values: np.ndarray, lengths: np.ndarray, everything: np.ndarray) -> float:
    """Difference of the mean over S measured sentences from the mean over all lengths, with latency linear between lengths.

    Args:
        values: latencies (S,).
        lengths: lengths of the S sentences (S,).
        everything: all lengths (N,).
    """
    indices = np.unique(lengths)
    means = np.array([values[lengths == index].mean() for index in indices])
    return abs(float(np.interp(everything, indices, means).mean() / values.mean()) - 1)


def kendall_tau(left: Sequence[float] | np.ndarray, right: Sequence[float] | np.ndarray) -> float:
    """Kendall's tau-b of two rankings."""
    from scipy.stats import kendalltau

    return round(float(kendalltau(left, right).statistic), 4)


def _percent(fraction: float) -> float:
    return round(100 * float(fraction), 2)


def _write_csv(
    path: Path, archs: Sequence[Arch], truth: np.ndarray, predicted: np.ndarray, errors: np.ndarray, repeats: np.ndarray
) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["arch", "exhaustive_ms", "table_ms", "error_pct", "repeat_pct"])
        for arch, *values in zip(archs, truth, predicted, 100 * errors, 100 * repeats, strict=True):
            writer.writerow([str(arch), *(round(float(value), 4) for value in values)])


def summary(artifact: Artifact) -> str:
    """The bound as text."""
    found = artifact.results
    sample = (
        "the fixed architectures, for development; --validation.seed draws others"
        if found["seed"] is None
        else f"drawn with seed {found['seed']} from the predicted ones"
    )
    return (
        f"{found['engine']}: the table is within {found['bound_pct']} % for at least 95 % of architectures, at 95 % "
        f"confidence (largest of {HELD_OUT} errors; {sample}; median {found['median_abs_pct']} %, Kendall tau "
        f"{found['kendall_tau']})\n"
        f"two measurements by the exhaustive protocol agree within {found['repeatability_pct']} % (median "
        f"{found['repeatability_median_pct']} %, tau {found['repeatability_tau']}), over {found['sentences']} sentences and "
        f"{found['runs']} runs; sampling the sentences adds an error of at most {found['sampling_error_pct']} %\n"
        f"all 2400 by the exhaustive protocol: {found['exhaustive_hours']:,.0f} hours; the table took "
        f"{found['table_minutes']:g} minutes, {found['times_cheaper']:,.0f} times less"
    )
