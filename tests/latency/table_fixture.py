"""Latency tables of a simulated host, for the tests of their readers: real artifacts with latencies from a formula."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from kdnas.models.arch import Arch, SearchSpace, arch_id
from kdnas.models.table import KIND, TableRow, interval, write_rows
from kdnas.models.teacher import BUILTIN, resolve_teacher
from kdnas.store.artifact import MANIFEST, Artifact, build

TEACHER_MS = 8.0
MEASURED_EVERY = 10  # every tenth row is measured
ACTIVATION_COST = {"gelu": 1.1, "relu": 1.0, "silu": 1.05}


def law_ms(arch: Arch) -> float:
    """Milliseconds: increases with depth, heads, size and the activation's cost; no two architectures are equal."""
    work = 2.1e-7 * arch.layer_parameters * ACTIVATION_COST[arch.activation]
    return 0.15 + arch.layers * (0.04 + 0.003 * arch.heads) + work


def row(arch: Arch, latency_ms: float, relative_sd: float = 0.02, **more: Any) -> TableRow:
    """One row; `more` overrides its values."""
    index = arch_id(arch)
    low_ms, high_ms = interval(latency_ms, relative_sd)
    measured = index % MEASURED_EVERY == 0
    size = arch.layer_parameters / 1e6
    made = TableRow(
        id=index,
        layers=arch.layers,
        heads=arch.heads,
        hidden=arch.hidden,
        ffn=arch.ffn,
        activation=arch.activation,
        parameters_millions=size + 0.0314 * arch.hidden,
        layer_parameters_millions=size,
        gflops=arch.flops(24) / 1e9,
        latency_ms=latency_ms,
        low_ms=low_ms,
        high_ms=high_ms,
        p50_ms=0.9 * latency_ms,
        p90_ms=1.4 * latency_ms,
        p99_ms=2 * latency_ms,
        teacher_ratio=latency_ms / TEACHER_MS,
        limit_ms=0.3 * latency_ms,
        limit_share=0.3,
        relative_sd=relative_sd,
        source="measured" if measured else "predicted",
        samples=12 if measured else 0,
    )
    return replace(made, **more)


def law_rows(seed: int | None = None, relative_sd: float = 0.02, factor: float = 1.0) -> list[TableRow]:
    """All 2400 rows: the formula times `factor`; with a seed, also times normal errors of `relative_sd`."""
    archs = list(SearchSpace())
    errors = np.zeros(len(archs)) if seed is None else np.random.default_rng(seed).normal(0, relative_sd, len(archs))
    return [
        row(arch, factor * law_ms(arch) * math.exp(error), relative_sd)
        for arch, error in zip(archs, errors, strict=True)
    ]


@cache
def builtin_digest() -> str:
    """Digest of the packaged teacher, which is the default of the commands."""
    return resolve_teacher(BUILTIN).digest


def table_artifact(
    home: Path,
    rows: Sequence[TableRow],
    engine: str = "openvino-f32",
    threads: int = 2,
    versions: str = "2026.4.1",
    mean_length: float = 24.0,
    finished: str = "2026-11-21T10:00:00+00:00",
    teacher: str | None = None,
) -> Artifact:
    """A finished latency table; its inputs include the digest of the latencies, so each table is a separate artifact.

    `teacher` is the digest of its teacher, by default the packaged one's.
    """

    def work(folder: Path) -> dict[str, Any]:
        (folder / "lengths.json").write_text(json.dumps({"mean": mean_length}))
        write_rows(folder / "table.csv", rows)
        return {
            "engine": engine,
            "threads": threads,
            "teacher_latency_ms": TEACHER_MS,
            "teacher_relative_sd": 0.001,
            "measured": sum(one.source == "measured" for one in rows),
        }

    config = {
        "options": {"engine": engine, "threads": threads, "finished": finished},
        "host": {"cpu": "Test CPU", "physical_cores": 2, "flags": ["avx2"]},
        "versions": {"openvino": versions},
        "sum": math.fsum(one.latency_ms for one in rows),
    }
    artifact = build(home, KIND, "tiny", config, {"teacher": teacher or builtin_digest(), "corpus": "b" * 64}, work)
    path = artifact.path / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), "finished": finished}))
    return Artifact.load(artifact.path, KIND)
