"""Columns of Parquet files: the same strings as in a list, and only row groups that are needed are read."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kdnas.text.column import Column

NAMES = [["b", "a", "b", ""], ["c", "a"], ["z"] * 5, ["a", "z", "ü"]]
ROWS = [name for part in NAMES for name in part]


@pytest.fixture
def column(tmp_path: Path) -> Column:
    """The rows in four row groups, next to a column of numbers."""
    schema = pa.schema([("name", pa.string()), ("number", pa.int64())])
    with pq.ParquetWriter(tmp_path / "a.parquet", schema, compression="zstd") as file:
        for part in NAMES:
            file.write_table(pa.table({"name": part, "number": range(len(part))}, schema=schema))
    return Column(tmp_path / "a.parquet", "name")


def test_it_equals_a_list(column: Column) -> None:
    assert len(column) == len(ROWS)
    assert list(column) == ROWS
    assert [column[index] for index in range(-len(ROWS), len(ROWS))] == ROWS * 2
    assert column[2:9:3] == ROWS[2:9:3]
    assert column[-4:] == ROWS[-4:]
    with pytest.raises(IndexError):
        column[len(ROWS)]
    assert column.at(np.array([], dtype=np.int64)) == []


def test_rows_are_in_the_requested_order_and_only_their_groups_are_read(column: Column) -> None:
    read: list[int] = []

    class Noted(Column):
        def _group(self, index: int) -> list[str]:
            read.append(index)
            return super()._group(index)

    noted = Noted(column._path, "name")
    assert noted.at(np.array([13, 0, 12, 3, 0])) == [ROWS[index] for index in (13, 0, 12, 3, 0)]
    assert read == sorted(read)
    assert set(read) == {0, 3}


def test_strings_are_numbered_in_the_order_of_their_first_rows(column: Column) -> None:
    order = list(dict.fromkeys(ROWS))
    assert column.numbers().tolist() == [order.index(name) for name in ROWS]
    assert column.numbers().dtype == np.int32
