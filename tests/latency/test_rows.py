"""The columns of a GPU's table: measured values unchanged, the others predicted by the table's kind of model."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdnas.latency.predictor import Fit
from kdnas.latency.protocol import design, stratify
from kdnas.latency.rows import write_gpu_columns
from kdnas.latency.samples import TEACHER, Measurement, Measurements
from kdnas.models.arch import Arch, SearchSpace

LENGTHS = stratify(np.array([10, 10, 20, 20]), 2)
MEASURED = design(0)[:60]


def graph_ms(arch: Arch) -> float:
    """Time of a replay, from costs that the cost law can represent: per call, layer, head and projection."""
    return 0.05 + arch.layers * (0.01 + 0.001 * arch.heads + 2e-8 * arch.hidden**2)


def device_ms(arch: Arch) -> float:
    """Time that the device is busy."""
    return 0.02 + arch.layers * (0.005 + 3e-8 * arch.hidden * arch.ffn)


def sample(name: str, graph: float, device: float) -> dict[str, Any]:
    """A window at two lengths; means over the sentences are `graph` and `device`."""
    return {
        "arch": name,
        "kept": True,
        "moved": 0.0,
        "graph_ms": [0.5 * graph, 1.5 * graph],
        "device_ms": [0.8 * device, 1.2 * device],
    }


def fitted() -> tuple[Measurements, Fit]:
    count = len(MEASURED)
    measurements = Measurements(
        archs=MEASURED,
        latencies=np.ones((count, 2)),
        relative_sd=np.full(count, 0.01),
        sweeps=np.full(count, 6),
        teacher=Measurement(np.ones(2), 0.01),
        level_ms=5.0,
        discarded=0,
        readmitted=0,
    )
    return measurements, Fit(lambda archs: np.ones((len(archs), 2)), "none", np.zeros(count), {})


def written(path: Path, samples: list[dict[str, Any]]) -> list[dict[str, str]]:
    write_gpu_columns(path, samples, *fitted(), LENGTHS)
    return list(csv.DictReader(path.open()))


def test_all_rows_follow_the_formula(tmp_path: Path) -> None:
    samples = [sample(TEACHER, 9.0, 8.0)]
    samples += [sample(str(arch), graph_ms(arch), device_ms(arch)) for arch in reversed(MEASURED)]
    rows = written(tmp_path / "gpu.csv", samples)
    assert list(rows[0]) == ["id", "arch", "graph_ms", "device_ms", "source"]
    assert [row["id"] for row in rows] == [str(index) for index in range(2400)]
    assert [row["arch"] for row in rows] == [str(arch) for arch in SearchSpace()]
    known = set(MEASURED)
    for row, arch in zip(rows, SearchSpace(), strict=True):
        assert row["source"] == ("measured" if arch in known else "predicted")
        assert float(row["graph_ms"]) == pytest.approx(graph_ms(arch), rel=0.02, abs=1e-4)
        assert float(row["device_ms"]) == pytest.approx(device_ms(arch), rel=0.02, abs=1e-4)


def test_measured_rows_are_unchanged(tmp_path: Path) -> None:
    """One architecture deviates in three windows: its row is their median, and the other rows are not affected."""
    samples = [sample(str(arch), graph_ms(arch), device_ms(arch)) for arch in MEASURED]
    odd = str(MEASURED[7])
    samples = [one for one in samples if one["arch"] != odd]
    samples += [sample(odd, 3.0, 0.9), sample(odd, 2.0, 0.7), sample(odd, 9.0, 0.8)]
    rows = {row["arch"]: row for row in written(tmp_path / "gpu.csv", samples)}
    assert (rows[odd]["graph_ms"], rows[odd]["device_ms"], rows[odd]["source"]) == ("3.0", "0.8", "measured")
    for arch in (MEASURED[6], MEASURED[8]):
        assert float(rows[str(arch)]["graph_ms"]) == pytest.approx(graph_ms(arch), abs=1e-4)
        assert float(rows[str(arch)]["device_ms"]) == pytest.approx(device_ms(arch), abs=1e-4)
