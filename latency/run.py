"""`kdnas latency-table`: measure some of the 2400 architectures within a budget, predict the others, state the error."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from kdnas.arch import Arch, SearchSpace, arch_id
from kdnas.artifact import Artifact, build, write_json
from kdnas.corpus import Corpus, TextOptions, build_corpus
from kdnas.environment import host
from kdnas.progress import say
from kdnas.teacher import Teacher, resolve_teacher
from latency.engines import ENGINES, require_engine
from latency.measure import measure
from latency.predictor import Fit, fit_predictor, shrink
from latency.protocol import SENTENCES, LatencyOptions, Lengths, design, sample_lengths, stratify
from latency.report import report_of
from latency.roofline import peaks_of
from latency.samples import Measurements, gather
from latency.table import COLUMNS, KIND, MEASURED, PREDICTED, Row, embedding_parameters, interval, read_rows, write_rows
from latency.validate import ValidationOptions, run_validation
from latency.validate import summary as validation_summary


def latency_table(
    options: LatencyOptions,
    teacher: str = "builtin:minilm-l6",
    corpus: str = "builtin:pydocs",
    text: TextOptions = TextOptions(),
    home: Path = Path("artifacts"),
    validate: bool = False,
    validation: ValidationOptions = ValidationOptions(),
) -> None:
    """Measure what the architectures cost on this host, in one engine at batch 1 over real sentence lengths.

    Args:
        options: budget, threads and seed.
        teacher: the reference model: `builtin:minilm-l6`, a folder, or a hub id.
        corpus: where sentence lengths come from: `builtin:pydocs`, a file, or a hub id.
        text: how the corpus is read.
        home: root of artifacts.
        validate: measure 59 architectures that no table is fitted to, sentence by sentence, and state the error bound.
        validation: how much of that is measured.
    """
    resolved = resolve_teacher(teacher)
    built = build_corpus(home, corpus, text, resolved)
    artifact = build_table(home, resolved, built, options)
    say(summary(artifact))
    if validate:
        bound = run_validation(home, artifact, resolved, built, options, validation)
        say(validation_summary(bound))
        print(bound.path)
    say(f"report: {report_of(artifact, home / f'latency-{options.engine}.html', home)}")
    print(artifact.path)


def build_table(home: Path, teacher: Teacher, corpus: Corpus, options: LatencyOptions) -> Artifact:
    """Return the latency table of this host, measuring it (on from where it stopped) where it does not exist.

    Args:
        home: root of artifacts.
        teacher: the reference, measured in the same run; its vocabulary is the students'.
        corpus: its training sentences give the lengths.
        options: budget, threads and seed.

    Raises:
        UsageError: the budget is too small for a table, or this host lacks what the engine needs.
        KdnasError: the measuring process died again and again.
    """
    require_engine(options.engine)
    record = host()
    config = {
        "columns": COLUMNS,
        "options": replace(options, threads=options.resolved_threads),
        # Figures of different hosts or versions never mix, nor does one go on where another stopped.
        "host": {key: record[key] for key in ("cpu", "physical_cores", "flags")},
        "versions": {name: record["versions"].get(name) for name in ENGINES[options.engine]},
    }
    inputs = {"teacher": teacher.digest, "corpus": corpus.digest}
    return build(home, KIND, teacher.label, config, inputs, lambda path: _work(path, teacher, corpus, options))


def _work(path: Path, teacher: Teacher, corpus: Corpus, options: LatencyOptions) -> dict[str, Any]:
    started = time.monotonic()
    lengths = stratify(sample_lengths(corpus.train.lengths, options.seed))
    write_json(path / "lengths.json", _lengths_record(lengths))
    order = [str(arch) for arch in design(options.seed)][: options.max_architectures]
    roofline = _roofline(path / "roofline.json", options)
    samples = measure(path / "samples.jsonl", teacher, lengths, order, options, started)
    measured_at = time.monotonic()
    measurements = gather(samples, order, lengths, options.minimum)
    if measurements.readmitted:
        say(
            f"latency-table: this host is noisy: {measurements.discarded} windows were discarded, and "
            f"{measurements.readmitted} had to be taken back; quieten the host or give more minutes"
        )
    fit = fit_predictor(measurements.archs, measurements.latencies, measurements.relative_sd, lengths)
    rows = table_rows(measurements, fit, lengths, teacher)
    write_rows(path / "table.csv", rows)
    spent = sum(float(sample["seconds"]) for sample in samples) + time.monotonic() - measured_at
    return {
        "engine": options.engine,
        "threads": options.resolved_threads,
        "sentences": SENTENCES,
        "mean_length": round(float(lengths.mean(lengths.strata)), 2),
        "reference_level_ms": round(measurements.level_ms, 4),
        **_teacher_results(measurements, lengths, teacher),
        "measured": len(measurements.archs),
        "predicted": len(rows) - len(measurements.archs),
        "windows_discarded": measurements.discarded,
        "windows_readmitted": measurements.readmitted,
        "processes": len({sample["process"] for sample in samples}),
        "held_out": fit.report,
        "roofline": roofline,
        "minutes": round(spent / 60, 2),
    }


def _roofline(path: Path, options: LatencyOptions) -> dict[str, Any] | None:
    """What the host can do at most, measured once a table, before its models are; None where that was not wanted."""
    if not options.peak_seconds:
        return None
    if not path.exists():
        write_json(path, asdict(peaks_of(options.engine, options.resolved_threads, options.peak_seconds)))
    record: dict[str, Any] = json.loads(path.read_text())
    return record


def _lengths_record(lengths: Lengths) -> dict[str, Any]:
    return {
        "sentences": int(lengths.counts.sum()),
        "mean": float(lengths.mean(lengths.strata)),
        "strata": lengths.strata.tolist(),
        "weights": lengths.weights.tolist(),
        "values": lengths.values.tolist(),
        "counts": lengths.counts.tolist(),
    }


def _teacher_results(measurements: Measurements, lengths: Lengths, teacher: Teacher) -> dict[str, float]:
    """What the manifest states of the teacher, each key `teacher_...`."""
    shape = teacher.config
    arch = Arch(teacher.layers, shape["num_attention_heads"], teacher.hidden, shape["intermediate_size"])
    mean, p50, p90, p99 = _figures(measurements.teacher.latencies, lengths)
    return {
        "teacher_latency_ms": round(mean, 4),
        "teacher_p50_ms": round(p50, 4),
        "teacher_p90_ms": round(p90, 4),
        "teacher_p99_ms": round(p99, 4),
        "teacher_relative_sd": round(measurements.teacher.relative_sd, 5),
        "teacher_parameters_millions": round(
            (embedding_parameters(shape, teacher.hidden) + arch.layer_parameters) / 1e6, 3
        ),
    }


def _figures(latencies: np.ndarray, lengths: Lengths) -> tuple[float, float, float, float]:
    """Mean, p50, p90 and p99 in ms over the sentences, of latencies (K,) at the measured lengths."""
    p50, p90, p99 = (lengths.quantile(latencies, share) for share in (0.5, 0.9, 0.99))
    return float(lengths.mean(latencies)), p50, p90, p99


def table_rows(measurements: Measurements, fit: Fit, lengths: Lengths, teacher: Teacher) -> list[Row]:
    """All 2400 rows: what was measured, joined with what the others say of it; the rest as predicted."""
    archs = list(SearchSpace())
    latencies = fit.predict(archs)  # (2400, K)
    relative_sd = np.full(len(archs), fit.relative_sd)
    sweeps = np.zeros(len(archs), dtype=np.int64)
    measured = [arch_id(arch) for arch in measurements.archs]
    joined = shrink(measurements.latencies, measurements.relative_sd, fit.errors_pct)
    latencies[measured], relative_sd[measured] = joined
    sweeps[measured] = measurements.sweeps
    teacher_ms = float(lengths.mean(measurements.teacher.latencies))
    seq_len = round(float(lengths.mean(lengths.strata)))
    known = set(measured)
    rows = []
    for place, arch in enumerate(archs):
        mean, p50, p90, p99 = _figures(latencies[place], lengths)
        low_ms, high_ms = interval(mean, float(relative_sd[place]))
        rows.append(
            Row(
                id=place,
                **asdict(arch),
                parameters_millions=(arch.layer_parameters + embedding_parameters(teacher.config, arch.hidden)) / 1e6,
                layer_parameters_millions=arch.layer_parameters / 1e6,
                gflops=arch.flops(seq_len) / 1e9,
                latency_ms=mean,
                low_ms=low_ms,
                high_ms=high_ms,
                p50_ms=p50,
                p90_ms=p90,
                p99_ms=p99,
                teacher_ratio=mean / teacher_ms,
                relative_sd=float(relative_sd[place]),
                source=MEASURED if place in known else PREDICTED,
                samples=int(sweeps[place]),
            )
        )
    return rows


def summary(artifact: Artifact) -> str:
    """The table in some lines of text: the teacher, the fastest and the slowest, the error."""
    results = artifact.results
    rows = sorted(read_rows(artifact.path / "table.csv"), key=lambda row: row.latency_ms)
    held_out = results["held_out"]
    lines = [
        f"{results['measured']} architectures measured, {results['predicted']} predicted in {results['minutes']} minutes, "
        f"{results['windows_discarded']} windows discarded; {results['engine']}, {results['threads']} threads, batch 1",
        f"teacher  {results['teacher_latency_ms']:8.2f} ms  p50 {results['teacher_p50_ms']:.2f}  "
        f"p90 {results['teacher_p90_ms']:.2f}  p99 {results['teacher_p99_ms']:.2f}",
        *_lines("fastest", rows[:1]),
        *_lines("slowest", rows[-1:]),
        f"held-out error: median {held_out['median_abs_pct']} %, p90 {held_out['p90_abs_pct']} %, "
        f"largest {held_out['max_abs_pct']} %; medians of others: "
        + ", ".join(f"{name} {error['median_abs_pct']} %" for name, error in held_out["baselines"].items()),
    ]
    return "\n".join(lines)


def _lines(title: str, rows: Sequence[Row]) -> list[str]:
    return [
        f"{title}  {row.latency_ms:8.2f} ms  p50 {row.p50_ms:.2f}  p90 {row.p90_ms:.2f}  p99 {row.p99_ms:.2f}  "
        f"{row.arch.name} ({row.source}, 95 % interval {row.low_ms:.2f} to {row.high_ms:.2f} ms, "
        f"{row.teacher_ratio:.2f} of the teacher)"
        for row in rows
    ]
