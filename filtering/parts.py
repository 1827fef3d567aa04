"""Output files of one piece of a unit: lines, plain or compressed, or Parquet with the schema of the input."""

import gzip
import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any, Protocol

import zstandard

BUFFER_BYTES = 2**25  # rows of Parquet that are collected for one row group


class HashedFile(io.RawIOBase):
    """A new file that is only appended to, and the SHA-256 of its bytes."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb")
        self._hash = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._hash.update(data)
        return self._file.write(data)

    def tell(self) -> int:
        return self._file.tell()

    def finish(self) -> str:
        """Make the file durable; returns its SHA-256."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return self._hash.hexdigest()

    def abandon(self) -> None:
        """Close the file without making it durable."""
        self._file.close()


class Part(Protocol):
    """A file to which the documents of one fate are written."""

    rows: int

    def finish(self) -> str:
        """Make the file durable; returns its SHA-256."""

    def abandon(self) -> None:
        """Close the file, whose unit has failed."""


class LinePart:
    """Lines in a new file; the same lines give the same bytes.

    Args:
        path: the file.
        suffix: ends in `.gz` or `.zst` for compressed lines.
    """

    def __init__(self, path: Path, suffix: str) -> None:
        self.rows = 0
        self._file = HashedFile(path)
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
        path: the file.
        codec: compression of the columns.
    """

    def __init__(self, path: Path, codec: str) -> None:
        self.rows = 0
        self._codec = {"uncompressed": "none"}.get(codec, codec)
        self._file = HashedFile(path)
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
