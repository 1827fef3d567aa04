"""Builds the rows of the table from measurements and a fit."""

import csv
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from kdnas.latency.predictor import Fit, fit_one, shrink
from kdnas.latency.protocol import Lengths
from kdnas.latency.roofline import Peaks, bounds_ms
from kdnas.latency.samples import Measurements, Sample, admitted
from kdnas.models.arch import Arch, SearchSpace, arch_id
from kdnas.models.table import MEASURED, PREDICTED, TableRow, embedding_parameters, interval
from kdnas.models.teacher import Teacher

GPU_COLUMNS = ("graph_ms", "device_ms")


def published_shape(teacher: Teacher) -> bool:
    """Whether the teacher has the layers of XLM-R base."""
    return (teacher.layers, teacher.hidden, teacher.sizes.ffn) == (12, 768, 3072)


def teacher_results(measurements: Measurements, lengths: Lengths, teacher: Teacher) -> dict[str, Any]:
    """The teacher's values for the manifest: `teacher`, which it is, and its latencies and size as `teacher_...`."""
    sizes = teacher.sizes
    arch = Arch(sizes.layers, sizes.heads, sizes.hidden, sizes.ffn)
    mean, p50, p90, p99 = _figures(measurements.teacher.latencies, lengths)
    return {
        "teacher": {"spec": teacher.spec, "shape": asdict(sizes), "weights": teacher.has_weights},
        "teacher_latency_ms": round(mean, 4),
        "teacher_p50_ms": round(p50, 4),
        "teacher_p90_ms": round(p90, 4),
        "teacher_p99_ms": round(p99, 4),
        "teacher_relative_sd": round(measurements.teacher.relative_sd, 5),
        "teacher_parameters_millions": round(((sizes.rows + 2) * sizes.hidden + arch.layer_parameters) / 1e6, 3),
    }


def _figures(latencies: np.ndarray, lengths: Lengths) -> tuple[float, float, float, float]:
    """Mean, p50, p90 and p99 in ms over the sentences, of latencies (K,) at the measured lengths."""
    p50, p90, p99 = (lengths.quantile(latencies, fraction) for fraction in (0.5, 0.9, 0.99))
    return float(lengths.mean(latencies)), p50, p90, p99


def table_rows(
    measurements: Measurements, fit: Fit, lengths: Lengths, teacher: Teacher, peaks: Peaks | None
) -> list[TableRow]:
    """All 2400 rows: measurements combined with their held-out predictions, and predictions for the rest."""
    archs = list(SearchSpace())
    latencies = fit.predict(archs)  # (2400, K)
    relative_sd = np.full(len(archs), fit.relative_sd)
    sweeps = np.zeros(len(archs), dtype=np.int64)
    measured = [arch_id(arch) for arch in measurements.archs]
    latencies[measured], relative_sd[measured] = measurements.latencies, measurements.relative_sd
    if len(measured) < len(archs):  # if all are measured, the measurements stay unchanged
        joined = shrink(measurements.latencies, measurements.relative_sd, fit.errors_pct)
        latencies[measured], relative_sd[measured] = joined
    sweeps[measured] = measurements.sweeps
    teacher_ms = float(lengths.mean(measurements.teacher.latencies))
    seq_len = round(float(lengths.mean(lengths.strata)))
    known = set(measured)
    limits = np.full(len(archs), np.nan) if peaks is None else bounds_ms(archs, lengths, peaks)
    rows = []
    for index, arch in enumerate(archs):
        mean, p50, p90, p99 = _figures(latencies[index], lengths)
        low_ms, high_ms = interval(mean, float(relative_sd[index]))
        rows.append(
            TableRow(
                id=index,
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
                limit_ms=float(limits[index]),
                limit_share=float(limits[index]) / mean,
                relative_sd=float(relative_sd[index]),
                source=MEASURED if index in known else PREDICTED,
                samples=int(sweeps[index]),
            )
        )
    return rows


def write_gpu_columns(
    path: Path, samples: Sequence[Sample], measurements: Measurements, fit: Fit, lengths: Lengths
) -> None:
    """Write `gpu.csv`: the mean CUDA-graph replay and the mean device-busy time of all architectures, in ms.

    Measured architectures have their measured values; the others are predicted by the table's kind of model.
    """
    archs = list(SearchSpace())
    measured = [arch_id(arch) for arch in measurements.archs]
    means = []
    kept, _ = admitted(samples, len(measured))
    for name in GPU_COLUMNS:
        by_arch: dict[str, list[list[float]]] = {}
        for sample in (one for windows in kept.values() for one in windows):
            by_arch.setdefault(sample["arch"], []).append(sample[name])
        known = np.stack([np.median(by_arch[str(arch)], axis=0) for arch in measurements.archs])  # (N, K)
        model = fit_one(fit.correction, lengths, measurements.archs, known, measurements.relative_sd)
        values = lengths.mean(model(archs))
        values[measured] = lengths.mean(known)
        means.append(values)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "arch", *GPU_COLUMNS, "source"])
        known_ids = set(measured)
        for index, arch in enumerate(archs):
            figures = [round(float(values[index]), 4) for values in means]
            writer.writerow([index, str(arch), *figures, MEASURED if index in known_ids else PREDICTED])
