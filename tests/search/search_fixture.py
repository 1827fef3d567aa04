"""A search without distillation: formulas give losses and latencies, as a table and as a recording."""

import csv
from pathlib import Path

from kdnas.models.arch import Arch, SearchSpace, arch_id
from kdnas.models.table import FILE, KIND, LatencyTable, TableRow, write_rows
from kdnas.search.outcome import ProxyResult
from kdnas.search.recording import LOSSES
from kdnas.store.artifact import Artifact, build

from ..latency.table_fixture import row


def latency_ms(arch: Arch) -> float:
    return 0.2 + arch.flops(24) / 1e8


def fake_evaluate(arch: Arch) -> ProxyResult:
    return ProxyResult(20 / (arch.layers * arch.hidden) ** 0.5 / (1 + arch.ffn / 3000), 1000)


def rows() -> list[TableRow]:
    """All 2400 architectures, with latencies from a formula."""
    return [row(arch, latency_ms(arch), parameters_millions=arch.layer_parameters / 1e6 + 11) for arch in SearchSpace()]


def table(
    home: Path, teacher_latency_ms: float | None = 8.0, engine: str = "pytorch-f32", teacher: str = ""
) -> Artifact:
    """A complete latency table on disk; it names no teacher unless the digest of one is given."""

    def write(path: Path) -> dict[str, float]:
        write_rows(path / FILE, rows())
        return {} if teacher_latency_ms is None else {"teacher_latency_ms": teacher_latency_ms}

    config = {"teacher": teacher_latency_ms, "options": {"engine": engine}}
    return build(home, KIND, "test", config, {"teacher": teacher} if teacher else {}, write)


def known_table() -> LatencyTable:
    """The same in memory; the teacher takes 8 ms."""
    return LatencyTable(tuple(rows()), 8.0, "digest")


def recorded(path: Path, archs: list[Arch], **provenance: str) -> Path:
    """A recording with two seeds; each has losses at half the budget and at the end. Without provenance, an old one."""
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow([*LOSSES, *provenance])
        for arch in archs:
            for seed in (0, 1):
                for tokens, more in ((500, 0.1), (1000, 0.0)):
                    loss = fake_evaluate(arch).loss + more + 0.01 * seed
                    out.writerow([arch_id(arch), *str(arch).split(","), seed, tokens, loss, 1.0, *provenance.values()])
    return path
