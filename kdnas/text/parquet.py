"""Rows of Parquet files in batches of bounded size; rows that are too long are never converted to Python objects."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from kdnas.errors import UsageError
from kdnas.text import lines

BATCH_ROWS = 256
BATCH_BYTES = 2**26


def open_parquet(path: Path | BinaryIO, what: str) -> Any:
    """The file as a `pyarrow.parquet.ParquetFile`.

    Args:
        path: the file, or the file open for reading.
        what: name of the file in error messages, such as `corpus 'a.parquet'`.

    Raises:
        UsageError: it is not a Parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise UsageError(f"{what}: not a Parquet file ({error})") from error


def parquet_batches(file: Any, columns: list[str] | None = None) -> Iterator[list[dict[str, Any] | None]]:
    """Rows of some columns, or of all, in batches; None for a row with more than `MAX_LINE_BYTES` bytes of text.

    Arrow decodes whole pages, so a page with a very long value is in memory for a moment.
    """
    meta = file.metadata
    groups = [meta.row_group(index) for index in range(meta.num_row_groups)]
    longest = max((group.total_byte_size // max(1, group.num_rows) for group in groups), default=0)
    size = max(1, min(BATCH_ROWS, BATCH_BYTES // max(1, longest)))
    for batch in file.iter_batches(batch_size=size, columns=columns):
        bytes_of = _bytes_of_text(batch)
        if max(bytes_of, default=0) <= lines.MAX_LINE_BYTES:
            yield batch.to_pylist()
        else:
            yield [
                batch.slice(index, 1).to_pylist()[0] if count <= lines.MAX_LINE_BYTES else None
                for index, count in enumerate(bytes_of)
            ]


def _bytes_of_text(batch: Any) -> list[int]:
    """Bytes of all strings of each row."""
    import pyarrow as pa
    import pyarrow.compute as pc

    total = [0] * batch.num_rows
    for column in batch.columns:
        kind = column.type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind):
            sizes = pc.fill_null(pc.binary_length(column), 0).to_pylist()
            total = [before + size for before, size in zip(total, sizes, strict=True)]
    return total
