"""`kdnas latency-table`: measure some of the 2400 architectures within a time budget, predict the others and report the error."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from kdnas.latency.engines import require_engine
from kdnas.latency.measure import (
    FASTEST_WINDOW_S,
    START_S,
    least_seconds,
    measure,
    require_minutes,
    with_enough_minutes,
    worker_setup,
)
from kdnas.latency.noise import PROCESSES, WINDOWS, check_host, describe
from kdnas.latency.paper import measure_all, table2_archs, table2_ratios
from kdnas.latency.predictor import fit_predictor
from kdnas.latency.protocol import (
    RUNS,
    SENTENCES,
    WARM_CALLS,
    LatencyOptions,
    Lengths,
    calls_per_length,
    design,
    length_step,
    padded,
    sample_lengths,
    stratify,
)
from kdnas.latency.report import report_of
from kdnas.latency.reuse import take_samples
from kdnas.latency.roofline import Peaks, peaks_of
from kdnas.latency.rows import published_shape, table_rows, teacher_results, write_gpu_columns
from kdnas.latency.samples import TEACHER, Measurements, gather
from kdnas.latency.validate import ValidationOptions, run_validation
from kdnas.latency.validate import summary as validation_summary
from kdnas.models.arch import arch_id
from kdnas.models.engine import Engine
from kdnas.models.family import family_of
from kdnas.models.table import COLUMNS, FILE, KIND, LatencyTable, TableRow, write_rows
from kdnas.models.teacher import Teacher, resolve_shape, resolve_tokenizer
from kdnas.store.artifact import Artifact, build
from kdnas.store.host import host, versions
from kdnas.store.json_files import read_jsonl, write_json
from kdnas.store.outcome import Result
from kdnas.store.output import deliver, require_output
from kdnas.store.progress import say, stage
from kdnas.text.corpus import Corpus, sample_corpus, sentences_needed
from kdnas.text.readers import TextOptions


def latency_table(
    options: LatencyOptions,
    teacher: str = "builtin:minilm-l6",
    corpus: str = "builtin:pydocs",
    tokenizer: str | None = None,
    text: TextOptions = TextOptions(),
    home: Path = Path("artifacts"),
    validate: bool = False,
    validation: ValidationOptions = ValidationOptions(),
    output: Path | None = None,
) -> Result:
    """Measure the latency of the architectures on this host, in one engine at batch 1 over real sentence lengths.

    Args:
        options: measurement options.
        teacher: reference model: `builtin:minilm-l6`, a folder or a hub id; or `builtin:xlm-roberta-base`, the published
            teacher's shape without weights.
        corpus: source of the sentence lengths: `builtin:pydocs`, a file, or a hub id.
        tokenizer: tokenizer that counts the tokens: a folder with `tokenizer.json`, or a hub id; null takes the teacher's, or
            that of `builtin:minilm-l6` for a shape without weights.
        text: how to read the corpus.
        home: root of artifacts.
        validate: also measure 59 held-out architectures sentence by sentence and report the error bound of the table.
        validation: options of that validation.
        output: folder for a copy of the result as plain files; null keeps it only below `home`.
    """
    require_output(output, KIND)
    started = time.monotonic()
    require_engine(options.engine)
    require_minutes(options, least_of_all(options))
    resolved = resolve_shape(teacher, home)
    if (family := family_in_graph(resolved.config, options)) is not None:
        say(f"latency-table: {options.engine} times the teacher as a {family} of its sizes, not as {resolved.label}")
    wanted = sentences_needed(options.sentences, 0, text.validation_fraction)
    built = sample_corpus(home, corpus, text, resolve_tokenizer(tokenizer, resolved, home), wanted)
    artifact = build_table(home, resolved, built, options, started)
    say(summary(artifact))
    if validate:
        bound = run_validation(home, artifact, resolved, built, options, validation)
        say(f"{validation_summary(bound)}\nvalidation: {bound.path}")
    say("latency-table: writing the report")
    say(f"report: {report_of(artifact, home / f'latency-{options.engine}.html', home)}")
    return deliver(artifact, output)


def least_of_all(options: LatencyOptions) -> float:
    """Minimum seconds of a table with these options on any host: peaks, A/A check, architectures and fit."""
    peaks = options.peak_seconds if options.resolved_engine.device == "cpu" else 0.0
    check = PROCESSES * (START_S + WINDOWS * FASTEST_WINDOW_S)
    return peaks + check + least_seconds(options)


def family_in_graph(config: Mapping[str, Any], options: LatencyOptions) -> str | None:
    """The family in whose graph a compiled engine times the teacher, if it is not the teacher's own.

    Args:
        config: the teacher's config.json.
        options: names the engine.
    """
    family = family_of(config)
    return family.student if options.resolved_engine.graph is not None else None


def build_table(
    home: Path, teacher: Teacher, corpus: Corpus, options: LatencyOptions, started: float | None = None
) -> Artifact:
    """Return the latency table of this host; measure it, or resume an interrupted measurement, if it does not exist.

    Args:
        home: root of artifacts.
        teacher: the reference, measured in the same run; its vocabulary is the students'.
        corpus: its training sentences give the lengths.
        options: measurement options.
        started: start of the time budget, by `time.monotonic`; by default now.

    Raises:
        UsageError: the time budget is too small for a table, or this host does not meet the engine's requirements.
        KdnasError: the measuring process died repeatedly.
    """
    engine, record = require_engine(options.engine), host()
    packages = versions(engine.packages)
    config = {
        "columns": COLUMNS,
        "warm_calls": WARM_CALLS,
        "length_step": length_step(options.engine),
        "calls_per_length": calls_per_length(options.engine),
        "options": replace(options, threads=options.resolved_threads),
        # Measurements of different hosts or versions never mix, and one host never resumes another's table.
        "host": {key: record[key] for key in ("cpu", "physical_cores", "flags")} | _gpu(engine),
        "versions": {name: packages.get(name) for name in engine.packages},
    }
    inputs = {"teacher": teacher.digest, "corpus": corpus.digest}
    begun = time.monotonic() if started is None else started

    def work(path: Path) -> dict[str, Any]:
        if options.protocol == "fast":
            take_samples(path, config, inputs)
            if not (path / "samples.jsonl").exists():
                require_minutes(options, least_of_all(options))
        return _work(path, teacher, corpus, options, begun)

    return build(home, KIND, teacher.label, config, inputs, work)


def _gpu(engine: Engine) -> dict[str, Any]:
    """The record of the GPU that an engine runs on; empty for a CPU engine."""
    if engine.device != "cuda":
        return {}
    from kdnas.latency.engines.cuda import device_record

    return device_record()


def _work(path: Path, teacher: Teacher, corpus: Corpus, options: LatencyOptions, started: float) -> dict[str, Any]:
    unpadded, step = sample_lengths(corpus.train.lengths, options.seed, options.sentences), length_step(options.engine)
    sample = padded(unpadded, step)
    strata = stratify(sample, step=step)
    setup = worker_setup(path, teacher, strata, options)
    check = check_host(path / "check.jsonl", setup, strata)
    roofline = _roofline(path / "roofline.json", options)
    if options.protocol == "paper":
        lengths = stratify(sample, len(sample), step)
        measurements, spent = measure_all(path, setup, sample, lengths, options)
    else:
        lengths = strata
        measurements, spent = _measure_design(path / "samples.jsonl", setup, lengths, teacher, options, started)
        noise = np.maximum(
            measurements.relative_sd, check["sd_pct"] / 100
        )  # repeats within a window miss the drift between windows
        measurements = replace(measurements, relative_sd=noise)
    write_json(path / "lengths.json", _lengths_record(lengths))
    fitting = time.monotonic()
    with stage("latency-table: fit", 2) as progress:
        fit = fit_predictor(measurements.archs, measurements.latencies, measurements.relative_sd, lengths)
        progress.advance()
        peaks = None if roofline is None else Peaks.from_record(roofline)
        rows = table_rows(measurements, fit, lengths, teacher, peaks)
        write_rows(path / FILE, rows)
        if options.resolved_engine.device == "cuda" and options.protocol == "fast":
            write_gpu_columns(path / "gpu.csv", read_jsonl(path / "samples.jsonl"), measurements, fit, lengths)
        progress.advance()
    minutes = (spent + time.monotonic() - fitting) / 60
    return {
        "engine": options.engine,
        "protocol": options.protocol,
        "threads": options.resolved_threads,
        "sentences": options.sentences,
        "mean_length": round(float(unpadded.mean()), 2),
        "length_step": step,
        "reference_level_ms": round(measurements.level_ms, 4),
        **teacher_results(measurements, lengths, teacher),
        "measured": len(measurements.archs),
        "predicted": len(rows) - len(measurements.archs),
        "windows_discarded": measurements.discarded,
        "windows_readmitted": measurements.readmitted,
        "held_out": fit.report,
        "check": check,
        "table2": _table2(rows, teacher),
        "roofline": roofline,
        "minutes": round(minutes, 2),
        **_cost(rows, minutes),
    }


def _measure_design(
    log: Path, setup: dict[str, Any], lengths: Lengths, teacher: Teacher, options: LatencyOptions, started: float
) -> tuple[Measurements, float]:
    """Run the fast protocol; returns the measurements and the seconds that they took."""
    order = design_for(teacher, options)
    earlier = read_jsonl(log)
    windows = [float(row["seconds"]) for row in read_jsonl(log.with_name("check.jsonl")) if "seconds" in row]
    measured = len({sample["arch"] for sample in earlier} - {TEACHER})
    spent = sum(float(sample["seconds"]) for sample in earlier) + time.monotonic() - started
    needed = spent + least_seconds(options, measured, median(windows) if windows else FASTEST_WINDOW_S)
    options = with_enough_minutes(options, needed)
    samples = measure(log, setup, lengths, order, options, started)
    measurements = gather(samples, order, lengths, options.minimum)
    if measurements.readmitted:
        say(
            f"latency-table: this host is noisy: {measurements.discarded} windows were discarded, and "
            f"{measurements.readmitted} were readmitted; stop other work on the host or give more minutes"
        )
    return measurements, sum(float(sample["seconds"]) for sample in samples)


def design_for(teacher: Teacher, options: LatencyOptions) -> list[str]:
    """The design, cut at `max_architectures`; for the published teacher's shape the architectures of Table 2 come first."""
    order = [str(arch) for arch in design(options.seed)]
    if published_shape(teacher):
        first = [name for name in map(str, table2_archs()) if name in order]
        order = [*first, *(name for name in order if name not in first)]
    return order[: options.max_architectures]


def _cost(rows: Sequence[TableRow], minutes: float) -> dict[str, float]:
    """Hours of the published protocol for the whole space on this host (model calls only), and the speed-up over it."""
    hours = sum(row.latency_ms for row in rows) / 1000 * SENTENCES * RUNS / 3600
    return {"exhaustive_hours": round(hours, 1), "times_cheaper": round(60 * hours / minutes, 1)}


def _roofline(path: Path, options: LatencyOptions) -> dict[str, Any] | None:
    """The host's peak throughputs, measured before the models; None on a GPU or with `peak_seconds` 0."""
    if not options.peak_seconds or options.resolved_engine.device != "cpu":
        return None
    if not path.exists():
        say(f"latency-table: measuring the peak throughput of this host, {options.peak_seconds:g} s")
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


def summary(artifact: Artifact) -> str:
    """A summary of the table in text: the teacher, the fastest and the slowest architecture, and the error."""
    results = artifact.results
    rows = sorted(LatencyTable.of(artifact).rows, key=lambda row: row.latency_ms)
    held_out = results["held_out"]
    lines = [
        f"{results['measured']} architectures measured, {results['predicted']} predicted in {results['minutes']} minutes, "
        f"{results['windows_discarded']} windows discarded; {results['engine']}, {results['threads']} threads, batch 1",
        f"teacher  {results['teacher_latency_ms']:8.2f} ms  p50 {results['teacher_p50_ms']:.2f}  "
        f"p90 {results['teacher_p90_ms']:.2f}  p99 {results['teacher_p99_ms']:.2f}",
        *_lines("fastest", rows[:1]),
        *_lines("slowest", rows[-1:]),
        f"held-out error: median {held_out['median_abs_pct']} %, p90 {held_out['p90_abs_pct']} %, "
        f"largest {held_out['max_abs_pct']} %; medians of baselines: "
        + ", ".join(f"{name} {error['median_abs_pct']} %" for name, error in held_out["baselines"].items()),
        describe(results["check"]),
        f"all 2400 by the exhaustive protocol: {results['exhaustive_hours']:,.0f} hours; this took "
        f"{results['times_cheaper']:,.0f} times less time",
        *table2_lines(results["table2"]),
    ]
    return "\n".join(lines)


def _table2(rows: Sequence[TableRow], teacher: Teacher) -> list[dict[str, Any]]:
    """Table 2 of the paper compared with this table, as latencies over the teacher's; empty for teachers of another shape."""
    if not published_shape(teacher):
        return []
    return [
        {
            "name": name,
            "arch": str(arch),
            "source": row.source,
            "ratio": row.teacher_ratio,
            "paper_ratio": round(ratio, 4),
        }
        for name, (arch, ratio) in table2_ratios().items()
        for row in [rows[arch_id(arch)]]
    ]


def table2_lines(table2: Sequence[dict[str, Any]]) -> list[str]:
    """Table 2 as text."""
    lines = ["Table 2 of arXiv 2303.09639, latency over the teacher's:             here    paper"] if table2 else []
    return lines + [
        f"  {row['name']:12} {row['arch']:22} {row['source']:10} {row['ratio']:21.3f} {row['paper_ratio']:8.3f}"
        for row in table2
    ]


def _lines(title: str, rows: Sequence[TableRow]) -> list[str]:
    return [
        f"{title}  {row.latency_ms:8.2f} ms  p50 {row.p50_ms:.2f}  p90 {row.p90_ms:.2f}  p99 {row.p99_ms:.2f}  "
        f"{row.arch.name} ({row.source}, 95 % interval {row.low_ms:.2f} to {row.high_ms:.2f} ms, "
        f"{row.teacher_ratio:.2f} of the teacher)"
        for row in rows
    ]
