"""`kdnas latency-table`: measure some of the 2400 architectures within a budget, predict the others, state the error."""

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
from latency.predictor import Fit, fit_predictor
from latency.protocol import SENTENCES, LatencyOptions, Lengths, design, sample_lengths, stratify
from latency.samples import Measurements, gather
from latency.table import KIND, MEASURED, PREDICTED, Row, embedding_parameters, read_rows, write_rows
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
    mean, p50, p90 = _figures(measurements.teacher.latencies, lengths)
    spent = sum(float(sample["seconds"]) for sample in samples) + time.monotonic() - measured_at
    shape = teacher.config
    teacher_arch = Arch(teacher.layers, shape["num_attention_heads"], teacher.hidden, shape["intermediate_size"])
    return {
        "engine": options.engine,
        "threads": options.resolved_threads,
        "sentences": SENTENCES,
        "reference_level_ms": round(measurements.level_ms, 4),
        "teacher_latency_ms": round(mean, 4),
        "teacher_p50_ms": round(p50, 4),
        "teacher_p90_ms": round(p90, 4),
        "teacher_relative_sd": round(measurements.teacher.relative_sd, 5),
        "teacher_parameters_millions": round(
            (embedding_parameters(shape, teacher.hidden) + teacher_arch.layer_parameters) / 1e6, 3
        ),
        "measured": len(measurements.archs),
        "predicted": len(rows) - len(measurements.archs),
        "windows_discarded": measurements.discarded,
        "windows_readmitted": measurements.readmitted,
        "processes": len({sample["process"] for sample in samples}),
        "held_out": fit.report,
        "minutes": round(spent / 60, 2),
    }


def _lengths_record(lengths: Lengths) -> dict[str, Any]:
    return {
        "sentences": int(lengths.counts.sum()),
        "mean": float(lengths.mean(lengths.strata)),
        "strata": lengths.strata.tolist(),
        "weights": lengths.weights.tolist(),
        "values": lengths.values.tolist(),
        "counts": lengths.counts.tolist(),
    }


def _figures(latencies: np.ndarray, lengths: Lengths) -> tuple[float, float, float]:
    """Mean, p50 and p90 in ms over the sentences, of latencies (K,) at the measured lengths."""
    return float(lengths.mean(latencies)), lengths.quantile(latencies, 0.5), lengths.quantile(latencies, 0.9)


def table_rows(measurements: Measurements, fit: Fit, lengths: Lengths, teacher: Teacher) -> list[Row]:
    """All 2400 rows: what was measured as measured, the rest as predicted."""
    archs = list(SearchSpace())
    latencies = fit.predict(archs)  # (2400, K)
    relative_sd = np.full(len(archs), fit.relative_sd)
    measured = [arch_id(arch) for arch in measurements.archs]
    latencies[measured] = measurements.latencies
    relative_sd[measured] = measurements.relative_sd
    teacher_ms = float(lengths.mean(measurements.teacher.latencies))
    known = set(measured)
    rows = []
    for place, arch in enumerate(archs):
        mean, p50, p90 = _figures(latencies[place], lengths)
        rows.append(
            Row(
                id=place,
                **asdict(arch),
                parameters_millions=(arch.layer_parameters + embedding_parameters(teacher.config, arch.hidden)) / 1e6,
                layer_parameters_millions=arch.layer_parameters / 1e6,
                latency_ms=mean,
                p50_ms=p50,
                p90_ms=p90,
                relative_sd=float(relative_sd[place]),
                teacher_ratio=mean / teacher_ms,
                source=MEASURED if place in known else PREDICTED,
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
        f"p90 {results['teacher_p90_ms']:.2f}",
        *_lines("fastest", rows[:1]),
        *_lines("slowest", rows[-1:]),
        f"held-out error: median {held_out['median_abs_pct']} %, p90 {held_out['p90_abs_pct']} %, "
        f"largest {held_out['max_abs_pct']} %; medians of others: "
        + ", ".join(f"{name} {error['median_abs_pct']} %" for name, error in held_out["baselines"].items()),
    ]
    return "\n".join(lines)


def _lines(title: str, rows: Sequence[Row]) -> list[str]:
    return [
        f"{title}  {row.latency_ms:8.2f} ms  p50 {row.p50_ms:.2f}  p90 {row.p90_ms:.2f}  {row.arch.name} "
        f"({row.source}, {row.teacher_ratio:.2f} of the teacher)"
        for row in rows
    ]
