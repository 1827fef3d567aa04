"""The latency table on disk."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from kdnas.errors import UsageError
from kdnas.models.arch import Arch, SearchSpace, arch_id
from kdnas.models.student import new_student
from kdnas.models.table import (
    COLUMNS,
    KIND,
    LatencyTable,
    TableRow,
    embedding_parameters,
    interval,
    read_rows,
    write_rows,
)
from kdnas.models.teacher import Teacher, load_config
from kdnas.store.artifact import build

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def rows() -> list[TableRow]:
    return [
        TableRow(
            *(index, arch.layers, arch.heads, arch.hidden, arch.ffn, arch.activation, 20.5, 3.25, 0.06636),
            *(0.5 + index, 0.48 + index, 0.52 + index, 0.4 + index, 0.9 + index, 1.5 + index, 0.25, 0.1, 0.2, 0.0123),
            *(("measured", 12) if index == 7 else ("predicted", 0)),
        )
        for index, arch in enumerate(SearchSpace())
    ]


def test_round_trip(rows: list[TableRow], tmp_path: Path) -> None:
    write_rows(tmp_path / "table.csv", rows)
    assert read_rows(tmp_path / "table.csv") == rows
    lines = (tmp_path / "table.csv").read_text().splitlines()
    assert len(lines) == 2401
    assert lines[0] == (
        "id,layers,heads,hidden,ffn,activation,parameters_millions,layer_parameters_millions,gflops,latency_ms,low_ms,high_ms,"
        "p50_ms,p90_ms,p99_ms,teacher_ratio,limit_ms,limit_share,relative_sd,source,samples"
    )
    assert lines[1] == "0,3,2,288,384,gelu,20.5,3.25,0.06636,0.5,0.48,0.52,0.4,0.9,1.5,0.25,0.1,0.2,0.0123,predicted,0"
    assert lines[8] == "7,3,2,288,576,relu,20.5,3.25,0.06636,7.5,7.48,7.52,7.4,7.9,8.5,0.25,0.1,0.2,0.0123,measured,12"


def test_interval_equals_a_hand_computed_value() -> None:
    # exp(1.96 * 0.05) is 1.102963.
    assert interval(2.0, 0.05) == pytest.approx((1.813298, 2.205925), rel=1e-6)
    assert interval(3.7, 0.0) == (3.7, 3.7)


def test_lookup(rows: list[TableRow]) -> None:
    table = LatencyTable(tuple(rows), teacher_latency_ms=4.0)
    arch = Arch(4, 12, 576, 768, "gelu")
    assert table.latency_ms(arch) == 0.5 + arch_id(arch)
    with pytest.raises(UsageError, match="published space"):
        table.latency_ms(Arch(5, 12, 576, 768, "gelu"))


def test_writer_rejects_incomplete_rows(rows: list[TableRow], tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        write_rows(tmp_path / "table.csv", rows[:-1])
    with pytest.raises(AssertionError):
        write_rows(tmp_path / "table.csv", [*rows[:-1], replace(rows[-1], id=7)])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[: len(text) // 2], "build it again"),
        (lambda text: text.replace("relative_sd", "sd"), r"columns are .*'sd'.* needed are .*'relative_sd'"),
        (lambda text: text.replace("\n5,3,", "\nfive,3,"), "not a latency table .*five"),
        (
            lambda text: text.replace(
                "0.25,0.1,0.2,0.0123,predicted,0\n6,", "0.25,0.1,0.2,0.0123,predicted,0,more\n6,"
            ),
            "not a latency",
        ),
        (lambda text: "\n".join(text.splitlines()[:-1]), "2399 rows"),
        (
            lambda text: text.replace("\n5,3,2,288,512,silu,", "\n5,3,2,288,512,gelu,"),
            "id 5 is not architecture 3,2,288,512",
        ),
        (lambda text: text.replace(",0.06636,5.5,", ",0.06636,nan,"), "3,2,288,512,silu has latency nan ms"),
        (lambda text: "\0" + text, "columns|not a latency table"),
        (lambda text: "", "columns are None"),
    ],
)
def test_damaged_tables_are_reported(rows: list[TableRow], tmp_path: Path, damage, message: str) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "table.csv"
    write_rows(path, rows)
    text = path.read_text()
    damaged = damage(text)
    assert damaged != text
    path.write_text(damaged)
    with pytest.raises(UsageError, match=message) as caught:
        read_rows(path)
    assert f"remove {tmp_path} and build it again with `kdnas latency-table`" in str(caught.value)


def test_table_without_intervals_is_rejected(rows: list[TableRow], tmp_path: Path) -> None:
    """Columns of version 0.1.0. The message gives the remedy, because a new run does not overwrite a finished artifact."""
    path = tmp_path / "table.csv"
    old = (
        "id,layers,heads,hidden,ffn,activation,parameters_millions,layer_parameters_millions,latency_ms,p50_ms,p90_ms,"
    )
    path.write_text(
        old + "relative_sd,teacher_ratio,source\n0,3,2,288,384,gelu,20.5,3.25,0.5,0.4,0.9,0.01,0.25,predicted\n"
    )
    with pytest.raises(UsageError, match=rf"columns are .*needed are .*'gflops'.*remove {tmp_path} and build it again"):
        read_rows(path)


def test_table_loads_from_an_artifact(rows: list[TableRow], tmp_path: Path) -> None:
    def work(folder: Path) -> dict[str, float]:
        write_rows(folder / "table.csv", rows)
        return {"teacher_latency_ms": 4.0} if folder.name.startswith("whole") else {}

    whole = build(tmp_path, KIND, "whole", {}, {}, work)
    table = LatencyTable.load(whole.path)
    assert table.rows == tuple(rows)
    assert table.teacher_latency_ms == 4.0
    headless = build(tmp_path, KIND, "headless", {"teacher": None}, {}, work)
    with pytest.raises(UsageError, match="no teacher_latency_ms"):
        LatencyTable.load(headless.path)
    (whole.path / "table.csv").unlink()
    with pytest.raises(UsageError, match=r"table\.csv: not a latency table \(FileNotFoundError"):
        LatencyTable.load(whole.path)
    with pytest.raises(UsageError, match="this is a 'corpus' artifact, a 'latency-table' is needed"):
        LatencyTable.load(build(tmp_path, "corpus", "x", {}, {}, lambda _: {}).path)


def test_parameters_equal_those_of_the_model(tiny_teacher: Teacher) -> None:
    arch = Arch(3, 4, 288, 384, "relu")
    model = new_student(arch, load_config(tiny_teacher.path))
    counted = sum(parameter.numel() for parameter in model.parameters())
    assert arch.layer_parameters + embedding_parameters(tiny_teacher.config, arch.hidden) == counted


def test_int8_weights_take_a_quarter_of_the_bytes(rows: list[TableRow]) -> None:
    arch = Arch(4, 12, 576, 768, "gelu")
    assert LatencyTable(tuple(rows), 4.0, engine="openvino-f32").megabytes(arch) == pytest.approx(4 * 20.5)
    assert LatencyTable(tuple(rows), 4.0, engine="openvino-int8").megabytes(arch) == pytest.approx(20.5)


@pytest.mark.parametrize("file", sorted((ROOT / "results" / "latency").glob("*/table.csv")), ids=str)
def test_committed_tables_have_the_schema(file: Path) -> None:
    rows = read_rows(file)
    assert len(rows) == 2400
    assert all(row.low_ms <= row.latency_ms <= row.high_ms for row in rows)
    assert file.read_text().splitlines()[0].split(",") == COLUMNS


def test_committed_table_of_the_search_loads() -> None:
    table = LatencyTable.load(ROOT / "results" / "search" / "latency-table")
    manifest = json.loads((ROOT / "results" / "search" / "latency-table" / "manifest.json").read_text())
    assert table.engine == "pytorch-f32"
    assert table.teacher == manifest["inputs"]["teacher"]
    assert table.host.endswith(" cores")
    assert table.latency_ms(Arch(3, 2, 288, 384, "gelu")) == 1.0643
    ratio = table.latency_ms(Arch(3, 2, 288, 384, "gelu")) / table.teacher_latency_ms
    assert ratio == pytest.approx(table.rows[0].teacher_ratio, rel=1e-3)
