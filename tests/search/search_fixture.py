"""A search without distillation: losses and latencies by formula, as a table and as a recording."""

import csv
from pathlib import Path

from kdnas.models.arch import FIELDS, Arch, arch_id
from kdnas.search.outcome import ProxyResult
from kdnas.search.recording import COLUMNS
from kdnas.store.artifact import Artifact, build


def latency_ms(arch: Arch) -> float:
    return 0.2 + arch.flops(24) / 1e8


def fake_evaluate(arch: Arch) -> ProxyResult:
    return ProxyResult(20 / (arch.layers * arch.hidden) ** 0.5 / (1 + arch.ffn / 3000), 1000)


def table(
    home: Path, rows: list[Arch], teacher_latency_ms: float | None = 8.0, engine: str = "pytorch-f32"
) -> Artifact:
    """A latency table on disk, with some of its columns."""

    def write(path: Path) -> dict[str, float]:
        with (path / "table.csv").open("w", newline="") as file:
            out = csv.writer(file)
            out.writerow(["id", *FIELDS, "parameters_millions", "latency_ms", "source"])
            for arch in rows:
                size = arch.layer_parameters / 1e6 + 11
                out.writerow([arch_id(arch), *str(arch).split(","), size, latency_ms(arch), "measured"])
        return {} if teacher_latency_ms is None else {"teacher_latency_ms": teacher_latency_ms}

    config = {"rows": len(rows), "teacher": teacher_latency_ms, "options": {"engine": engine}}
    return build(home, "latency-table", "test", config, {}, write)


def recorded(path: Path, archs: list[Arch]) -> Path:
    """A recording of two seeds, each with its loss at half of the budget and at its end."""
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(COLUMNS)
        for arch in archs:
            for seed in (0, 1):
                for tokens, more in ((500, 0.1), (1000, 0.0)):
                    loss = fake_evaluate(arch).loss + more + 0.01 * seed
                    out.writerow([arch_id(arch), *str(arch).split(","), seed, tokens, loss, 1.0])
    return path
