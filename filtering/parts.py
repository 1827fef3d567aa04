"""Output files of one piece of a unit: lines, plain or compressed, or Parquet with the schema of the input."""

import gzip
import hashlib
import io
import json
from typing import Any, Protocol

import zstandard

from kdnas.filtering.store import NewFile

BUFFER_BYTES = 2**25  # rows of Parquet that are collected for one row group


class HashedFile(io.RawIOBase):
    """A new file that is only appended to, its size, and the SHA-256 of its bytes.

    Args:
        file: the file in the store.
    """

    def __init__(self, file: NewFile) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self._size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._hash.update(data)
        written = self._file.write(data)
        self._size += written
        return written

    def tell(self) -> int:
        return self._size

    def finish(self) -> str:
        """Make the file durable; returns its SHA-256."""
        self._file.finish()
        return self._hash.hexdigest()

    def abandon(self) -> None:
        """Close and remove the file."""
        self._file.abandon()


class Part(Protocol):
    """A file to which the documents of one fate are written."""

    rows: int

    def finish(self) -> str:
        """Make the file durable; returns its SHA-256."""

    def abandon(self) -> None:
        """Close and remove the file, whose unit has failed."""


class LinePart:
    """Lines in a new file; the same lines give the same bytes.

    Args:
        file: the file.
        suffix: ends in `.gz` or `.zst` for compressed lines.
    """

    def __init__(self, file: HashedFile, suffix: str) -> None:
        self.rows = 0
        self._file = file
        self._out: Any = self._file
        if suffix.endswith(".gz"):
            self._out = gzip.GzipFile("", "wb", 6, self._file, mtime=0)
        elif suffix.endswith(".zst"):
            stream: Any = self._file
            self._out = zstandard.ZstdCompressor(level=3).stream_writer(stream, closefd=False)

    def write(self, line: bytes) -> None:
        self.rows += 1
        self._out.write(line + b"\n")

    def write_json(self, value: Any) -> None:
        self.write(json.dumps(value, ensure_ascii=False, allow_nan=False).encode())

    def finish(self) -> str:
        if self._out is not self._file:
            self._out.close()
        return self._file.finish()

    def abandon(self) -> None:
        self._file.abandon()


class TablePart:
    """Rows in a new Parquet file, with the schema of the batches that they come from.

    Args:
        file: the file.
        codec: compression of the columns.
    """

    def __init__(self, file: HashedFile, codec: str) -> None:
        self.rows = 0
        self._codec = {"uncompressed": "none"}.get(codec, codec)
        self._file = file
        self._writer: Any = None
        self._held: list[Any] = []
        self._bytes = 0

    def write(self, batch: Any) -> None:
        """Append the rows of a `pyarrow.RecordBatch`."""
        self.rows += batch.num_rows
        self._held.append(batch)
        self._bytes += batch.nbytes
        if self._bytes >= BUFFER_BYTES:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not self._held:
            return
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._file, self._held[0].schema, compression=self._codec)
        self._writer.write_table(pa.Table.from_batches(self._held))
        self._held, self._bytes = [], 0

    def finish(self) -> str:
        self._flush()
        self._writer.close()
        return self._file.finish()

    def abandon(self) -> None:
        self._file.abandon()
