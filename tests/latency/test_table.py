"""The table on disk."""

from dataclasses import replace
from pathlib import Path

import pytest

from kdnas.arch import Arch, SearchSpace, arch_id
from kdnas.errors import UsageError
from kdnas.student import new_student
from kdnas.teacher import Teacher, load_config
from latency.table import COLUMNS, LatencyTable, Row, embedding_parameters, read_rows, write_rows


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return [
        Row(place, *(arch.layers, arch.heads, arch.hidden, arch.ffn, arch.activation), 20.5, 3.25, *times, "predicted")
        for place, arch in enumerate(SearchSpace())
        for times in [(0.5 + place, 0.4 + place, 0.9 + place, 0.0123, 0.25)]
    ]


def test_round_trip(rows: list[Row], tmp_path: Path) -> None:
    write_rows(tmp_path / "table.csv", rows)
    assert read_rows(tmp_path / "table.csv") == rows
    lines = (tmp_path / "table.csv").read_text().splitlines()
    assert len(lines) == 2401
    assert lines[0] == (
        "id,layers,heads,hidden,ffn,activation,parameters_millions,layer_parameters_millions,latency_ms,p50_ms,p90_ms,"
        "relative_sd,teacher_ratio,source"
    )
    assert lines[1] == "0,3,2,288,384,gelu,20.5,3.25,0.5,0.4,0.9,0.0123,0.25,predicted"


def test_look_up(rows: list[Row]) -> None:
    table = LatencyTable(tuple(rows), teacher_latency_ms=4.0)
    arch = Arch(4, 12, 576, 768, "gelu")
    assert table.latency_ms(arch) == 0.5 + arch_id(arch)
    with pytest.raises(UsageError, match="published space"):
        table.latency_ms(Arch(5, 12, 576, 768, "gelu"))


def test_incomplete_rows_are_not_written(rows: list[Row], tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        write_rows(tmp_path / "table.csv", rows[:-1])
    with pytest.raises(AssertionError):
        write_rows(tmp_path / "table.csv", [*rows[:-1], replace(rows[-1], id=7)])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[: len(text) // 2], "build it again"),
        (lambda text: text.replace("relative_sd", "sd"), "columns"),
        (lambda text: text.replace("\n5,3,", "\nfive,3,"), "not a latency table"),
        (lambda text: "\n".join(text.splitlines()[:-1]), "2399 rows"),
    ],
)
def test_damaged_tables(rows: list[Row], tmp_path: Path, damage, message: str) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "table.csv"
    write_rows(path, rows)
    path.write_text(damage(path.read_text()))
    with pytest.raises(UsageError, match=message):
        read_rows(path)


def test_columns_are_those_promised() -> None:
    assert COLUMNS[:6] == ["id", "layers", "heads", "hidden", "ffn", "activation"]


def test_parameters_are_those_of_the_real_model(tiny_teacher: Teacher) -> None:
    arch = Arch(3, 4, 288, 384, "relu")
    model = new_student(arch, load_config(tiny_teacher.path))
    counted = sum(parameter.numel() for parameter in model.parameters())
    assert arch.layer_parameters + embedding_parameters(tiny_teacher.config, arch.hidden) == counted
