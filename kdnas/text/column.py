"""A column of strings of a Parquet file, read part by part: a corpus of millions of sentences does not fit into memory."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np


class Column(Sequence[str]):
    """The N strings of one column. Only one row group is in memory at a time.

    Args:
        path: the Parquet file.
        name: name of the column.
    """

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._name = path, name
        self._last: tuple[int, list[str]] = (-1, [])

    @cached_property
    def _file(self) -> Any:
        import pyarrow.parquet as pq

        return pq.ParquetFile(self._path, memory_map=True)

    @cached_property
    def _starts(self) -> np.ndarray:
        """First row of each row group, and N at the end: (G + 1,) int64."""
        groups = self._file.metadata
        sizes = [groups.row_group(index).num_rows for index in range(groups.num_row_groups)]
        return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)

    def _group(self, index: int) -> list[str]:
        if self._last[0] != index:
            self._last = (index, self._file.read_row_group(index, columns=[self._name])[self._name].to_pylist())
        return self._last[1]

    def __len__(self) -> int:
        return int(self._starts[-1])

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return self.at(np.arange(len(self))[index])
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        return self.at(np.array([index % len(self)]))[0]

    def __iter__(self) -> Iterator[str]:
        for group in range(len(self._starts) - 1):
            yield from self._group(group)

    def at(self, indices: np.ndarray) -> list[str]:
        """The strings of these rows, in the order of `indices`; each row group is read once.

        Args:
            indices: (M,) numbers of rows, from 0.
        """
        indices = np.asarray(indices, dtype=np.int64)
        groups = np.searchsorted(self._starts, indices, side="right") - 1
        found = [""] * len(indices)
        for place in np.argsort(groups, kind="stable").tolist():
            group = int(groups[place])
            found[place] = self._group(group)[int(indices[place] - self._starts[group])]
        return found

    def numbers(self) -> np.ndarray:
        """Number of each row's string, (N,) int32; strings are numbered in the order of their first rows."""
        import pyarrow.parquet as pq

        file = pq.ParquetFile(self._path, memory_map=True, read_dictionary=[self._name])
        found = np.empty(file.metadata.num_rows, dtype=np.int32)
        known: dict[str, int] = {}
        start = 0
        for batch in file.iter_batches(columns=[self._name]):
            column = batch.column(0)
            # Parquet's dictionary lists the strings of a row group in the order of their first rows.
            names = column.dictionary.to_pylist()
            numbers = np.array([known.setdefault(name, len(known)) for name in names], dtype=np.int32)
            found[start : start + len(column)] = numbers[np.asarray(column.indices)]
            start += len(column)
        return found
