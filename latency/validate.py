"""The bound: architectures that were never fitted, measured sentence by sentence, against what the table says of them."""

import csv
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdnas.arch import Arch, SearchSpace
from kdnas.artifact import Artifact, append_jsonl, build, read_jsonl
from kdnas.corpus import Corpus
from kdnas.errors import KdnasError, UsageError
from kdnas.progress import say, stage
from kdnas.teacher import Teacher
from latency.measure import ATTEMPTS, Worker, WorkerError, worker_setup
from latency.protocol import SENTENCES, LatencyOptions, held_out, sample_lengths, stratify
from latency.table import KIND as TABLE
from latency.table import LatencyTable

KIND = "latency-validation"
LOG = "validation.jsonl"
RUNS = 3  # of the published protocol
PASSES = 2 * RUNS  # twice, to see how well the protocol repeats itself


@dataclass(frozen=True)
class ValidationOptions:
    """How a table is validated.

    Args:
        sentences: of the 10,000 whose lengths the table is about, evenly spread over them; fewer take less time.
        tolerance: a chunk is measured again when the reference moved by more than this share while it ran.
    """

    sentences: int = 200
    tolerance: float = 0.1

    def __post_init__(self) -> None:
        if not 50 <= self.sentences <= SENTENCES:
            raise UsageError(f"sentences is {self.sentences}; allowed are 50 to {SENTENCES}")
        if not 0 < self.tolerance < 1:
            raise UsageError(f"tolerance is {self.tolerance}; allowed is between 0 and 1")


def run_validation(
    home: Path,
    table: Artifact,
    teacher: Teacher,
    corpus: Corpus,
    options: LatencyOptions,
    validation: ValidationOptions,
) -> Artifact:
    """Measure the held-out architectures by the exhaustive protocol, and compare a finished table with them.

    Each pass, in a process of its own and a random order, runs every architecture over all sentences once. Odd passes make
    one measurement of the published protocol (3 runs), even ones a second: their difference is what no table can beat.

    Args:
        home: root of artifacts.
        table: from `build_table`, with the same teacher, corpus and options.
        teacher: the reference.
        corpus: its training sentences give the lengths.
        options: those of the table.
        validation: how much is measured.

    Raises:
        UsageError: not a latency table.
        KdnasError: the measuring process died again and again.
    """
    if table.manifest["kind"] != TABLE:
        raise UsageError(f"{table.path}: a '{table.manifest['kind']}' artifact; a latency table is needed")
    config = {"engine": options.engine, "options": validation, "held_out": [str(arch) for arch in held_out()]}
    config["host"] = table.manifest["config"]["host"]

    def work(folder: Path) -> dict[str, Any]:
        return _work(folder, table, teacher, corpus, options, validation)

    return build(home, KIND, f"{teacher.label}-{options.engine}", config, {TABLE: table.digest}, work)


def _work(
    folder: Path,
    table: Artifact,
    teacher: Teacher,
    corpus: Corpus,
    options: LatencyOptions,
    validation: ValidationOptions,
) -> dict[str, Any]:
    everything = sample_lengths(corpus.train.lengths, options.seed)
    lengths = evenly(everything, validation.sentences)
    setup = worker_setup(folder, teacher, stratify(everything), options)
    rows = _measure(folder / LOG, setup, lengths, validation, options.seed)
    finished = LatencyTable.load(table.path)
    level = float(table.results["reference_level_ms"])
    archs = held_out()
    first, second = ([_truth(rows, arch, half) for arch in archs] for half in (1, 0))
    whole = [_truth(rows, arch, None) for arch in archs]
    truth = np.array([values.mean() for values in whole]) * level
    predicted = np.array([finished.latency_ms(arch) for arch in archs])
    repeats = np.array([a.mean() / b.mean() - 1 for a, b in zip(first, second, strict=True)])
    errors = predicted / truth - 1
    _write_csv(folder / "validation.csv", archs, truth, predicted, errors, repeats)
    return {
        "engine": options.engine,
        "sentences": len(lengths),
        "runs": RUNS,
        "seconds": round(sum(float(row["seconds"]) for row in rows), 1),
        "bound_pct": _percent(np.abs(errors).max()),
        "median_abs_pct": _percent(np.median(np.abs(errors))),
        "kendall_tau": kendall_tau(predicted, truth),
        "repeatability_pct": _percent(np.abs(repeats).max()),
        "repeatability_median_pct": _percent(np.median(np.abs(repeats))),
        "repeatability_tau": kendall_tau([a.mean() for a in first], [b.mean() for b in second]),
        "sampling_error_pct": _percent(max(sampling_error(values, lengths, everything) for values in whole)),
        **cost(finished, float(table.results["minutes"])),
    }


def evenly(lengths: np.ndarray, sentences: int) -> np.ndarray:
    """Lengths of `sentences` sentences evenly spread over the sorted lengths (N,), in a fixed random order."""
    ordered = np.sort(lengths)
    places = ((np.arange(sentences) + 0.5) * len(ordered) / sentences).astype(int)
    return np.asarray(np.random.default_rng(0).permutation(ordered[places]))


def _measure(
    log: Path, setup: dict[str, Any], lengths: np.ndarray, validation: ValidationOptions, seed: int
) -> list[dict[str, Any]]:
    """All passes, on from where an interrupted run stopped."""
    rows: list[dict[str, Any]] = list(read_jsonl(log))
    names = [str(arch) for arch in held_out()]
    failures = 0
    with stage("latency-validation", PASSES * len(names), len(rows)) as progress:
        while len(rows) < PASSES * len(names):
            number = next(n for n in range(PASSES) if sum(row["pass"] == n for row in rows) < len(names))
            done = {row["arch"] for row in rows if row["pass"] == number}
            order = [str(name) for name in np.random.default_rng([seed, 4, number]).permutation(names)]
            finished = len(rows)
            try:
                with Worker(setup) as worker:
                    worker.start()
                    for name in (name for name in order if name not in done):
                        start = time.monotonic()
                        request = {"arch": name, "sentences": lengths.tolist(), "tolerance": validation.tolerance}
                        row = {"pass": number, **worker.ask(request), "seconds": round(time.monotonic() - start, 3)}
                        append_jsonl(log, row)
                        rows.append(row)
                        progress.update(len(rows), f"pass {number + 1} of {PASSES}")
            except WorkerError as error:
                failures = failures + 1 if len(rows) == finished else 1
                if failures == ATTEMPTS:
                    raise KdnasError(
                        f"latency-validation: the measuring process died {ATTEMPTS} times: {error}. "
                        "What was measured is kept; the same command goes on from there"
                    ) from error
                say(f"latency-validation: the measuring process died ({error}); a new one goes on")
    return rows


def _truth(rows: Sequence[dict[str, Any]], arch: Arch, half: int | None) -> np.ndarray:
    """Latency of each sentence in reference windows, (S,): the median of its runs in odd, even or all passes."""
    runs = [row["in_references"] for row in rows if row["arch"] == str(arch) and half in (None, (row["pass"] + 1) % 2)]
    return np.asarray(np.median(np.array(runs), axis=0))


def sampling_error(values: np.ndarray, lengths: np.ndarray, everything: np.ndarray) -> float:
    """How far the mean of S measured sentences is from that over all lengths, were latency linear between lengths.

    Args:
        values: (S,) latencies.
        lengths: (S,) their lengths.
        everything: (N,) all lengths.
    """
    places = np.unique(lengths)
    means = np.array([values[lengths == place].mean() for place in places])
    return abs(float(np.interp(everything, places, means).mean() / values.mean()) - 1)


def kendall_tau(left: Sequence[float] | np.ndarray, right: Sequence[float] | np.ndarray) -> float:
    """Kendall's tau-b of two rankings."""
    from scipy.stats import kendalltau

    return round(float(kendalltau(left, right).statistic), 4)


def cost(table: LatencyTable, minutes: float) -> dict[str, float]:
    """Hours that the published protocol would take for the whole space on this host, and how much cheaper the table was."""
    hours = sum(row.latency_ms for row in table.rows) / 1000 * SENTENCES * RUNS / 3600
    assert len(table.rows) == len(SearchSpace())
    return {
        "exhaustive_hours": round(hours, 1),
        "table_minutes": minutes,
        "times_cheaper": round(60 * hours / minutes, 1),
    }


def _percent(share: float) -> float:
    return round(100 * float(share), 2)


def _write_csv(
    path: Path, archs: list[Arch], truth: np.ndarray, predicted: np.ndarray, errors: np.ndarray, repeats: np.ndarray
) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["arch", "exhaustive_ms", "table_ms", "error_pct", "repeat_pct"])
        for arch, *values in zip(archs, truth, predicted, 100 * errors, 100 * repeats, strict=True):
            writer.writerow([str(arch), *(round(float(value), 4) for value in values)])


def summary(artifact: Artifact) -> str:
    """The bound in some lines of text."""
    found = artifact.results
    return (
        f"{found['engine']}: the table is within {found['bound_pct']} % for at least 95 % of architectures, at 95 % "
        f"confidence (largest of {len(held_out())} errors; median {found['median_abs_pct']} %, Kendall tau "
        f"{found['kendall_tau']})\n"
        f"the exhaustive protocol repeats itself within {found['repeatability_pct']} % (median "
        f"{found['repeatability_median_pct']} %, tau {found['repeatability_tau']}), over {found['sentences']} sentences and "
        f"{found['runs']} runs; that few sentences cost at most {found['sampling_error_pct']} %\n"
        f"all 2400 by the exhaustive protocol: {found['exhaustive_hours']:,.0f} hours; the table took "
        f"{found['table_minutes']:g} minutes, {found['times_cheaper']:,.0f} times cheaper"
    )
