"""A synthetic latency table and its validation, for the tests of the report."""

import csv
import random
from pathlib import Path
from typing import Any

from kdnas.latency.protocol import held_out
from kdnas.models.arch import SearchSpace, arch_id
from kdnas.models.table import TableRow, read_rows, write_rows
from kdnas.store.artifact import Artifact, build
from kdnas.store.json_files import write_json

from .table_fixture import row

TEACHER_MS = 21.4
LENGTHS = {"values": [8, 16, 24, 32, 64], "counts": [1000, 3000, 3000, 2000, 1000], "strata": [12, 24, 48]}
ROOFLINE = {
    "gflops": 118.0, "gflops_by_tokens": {"16": 90.0, "128": 118.0}, "bandwidth_gbs": 14.0, "cache_gbs": 60.0,
    "bytes_per_weight": 4.0, "cache_bytes": 2**25,
}  # fmt: skip


def fake_rows(draw: random.Random, noise: float) -> list[TableRow]:
    """Latencies that increase with depth and width."""
    rows = []
    for arch in SearchSpace():
        took = 0.35 + arch.layers * (0.22 + 1.25e-6 * arch.hidden * (2 * arch.hidden + arch.ffn)) * draw.gauss(1, noise)
        measured = draw.random() < 0.06
        rows.append(
            row(
                arch,
                took,
                relative_sd=0.015,
                gflops=arch.flops(25) / 1e9,
                teacher_ratio=took / TEACHER_MS,
                source="measured" if measured else "predicted",
                samples=12 if measured else 0,
            )
        )
    return rows


def fake_table(home: Path, engine: str = "pytorch-f32", noise: float = 0.03, **results: Any) -> Artifact:
    """A synthetic latency table."""
    rows = fake_rows(random.Random(engine), noise)
    measured = sum(one.source == "measured" for one in rows)
    baselines = {name: {"median_abs_pct": 9.0, "p90_abs_pct": 27.0} for name in ("flops", "layer-sum")}
    figures = {
        "engine": engine, "threads": 2, "sentences": 10000, "teacher_latency_ms": TEACHER_MS, "teacher_p50_ms": 20.1,
        "teacher_p90_ms": 29.8, "teacher_parameters_millions": 22.57, "measured": measured,
        "predicted": 2400 - measured, "windows_discarded": 7, "windows_readmitted": 0, "minutes": 10.0,
        "check": {"windows": 8, "sd_pct": 1.5, "largest_pct": 4.2, "expected_bound_pct": 3.9, "quiet": True},
        "held_out": {"median_abs_pct": 2.3, "p90_abs_pct": 5.7, "max_abs_pct": 9.4, "baselines": baselines},
    } | results  # fmt: skip

    def work(folder: Path) -> dict[str, Any]:
        write_rows(folder / "table.csv", rows)
        write_json(folder / "lengths.json", LENGTHS)
        return figures

    options = {"engine": engine, "minutes": 10.0, "threads": 2, "seed": 0, "tolerance": 0.2, "max_architectures": None}
    return build(
        home, "latency-table", "teacher", {"options": options}, {"teacher": "t" * 64, "corpus": "c" * 64}, work
    )


def fake_validation(home: Path, table: Artifact, sentences: int = 200) -> Artifact:
    """A synthetic validation of this table."""
    draw = random.Random(sentences)
    rows = {one.id: one for one in read_rows(table.path / "table.csv")}

    def work(folder: Path) -> dict[str, Any]:
        errors = []
        with (folder / "validation.csv").open("w", newline="") as file:
            out = csv.writer(file)
            out.writerow(["arch", "exhaustive_ms", "table_ms", "error_pct", "repeat_pct"])
            for arch in held_out():
                says = rows[arch_id(arch)].latency_ms
                truth = says * draw.gauss(1, 0.02)
                errors.append(100 * (says / truth - 1))
                out.writerow([str(arch), truth, says, errors[-1], 0.4])
        return {
            "engine": table.results["engine"], "sentences": sentences, "runs": 3, "seconds": 900.0,
            "bound_pct": round(max(map(abs, errors)), 2), "median_abs_pct": 1.31, "kendall_tau": 0.981,
            "repeatability_pct": 1.7, "repeatability_median_pct": 0.5, "repeatability_tau": 0.99,
            "sampling_error_pct": 0.4, "exhaustive_hours": 312.0, "table_minutes": 10.0, "times_cheaper": 1872.0,
        }  # fmt: skip

    return build(home, "latency-validation", "teacher", {"sentences": sentences}, {"latency-table": table.digest}, work)
