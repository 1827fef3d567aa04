"""Lines and JSON objects of text files, plain, .gz or .zst; an error names the file and the line."""

import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import zstandard

from kdnas.errors import UsageError

CHUNK_BYTES = 1 << 17


class ZstdFile(io.RawIOBase):
    """Reads a .zst file of any number of frames. Unlike zstandard's own reader it raises EOFError if the file is truncated."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._frame: Any = None  # decompressor of the frame that is being read
        self._compressed = b""
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            if not self._compressed and not (data := self._file.read(CHUNK_BYTES)):
                if self._frame is not None:
                    raise EOFError("the archive is truncated")
                return 0
            self._compressed = self._compressed or data
            self._frame = self._frame or zstandard.ZstdDecompressor().decompressobj()
            self._ready = memoryview(self._frame.decompress(self._compressed))
            self._compressed = self._frame.unused_data if self._frame.eof else b""
            if self._frame.eof:
                self._frame = None
        size = min(len(buffer), len(self._ready))
        buffer[:size], self._ready = self._ready[:size], self._ready[size:]
        return size


def text_lines(path: Path, what: str) -> Iterator[tuple[int, str]]:
    """Number, from 1, and text of each line that is not blank, without the line end.

    Args:
        path: a text file; .gz and .zst are decompressed.
        what: name of the file in error messages, such as `corpus 'a.txt'`.

    Raises:
        UsageError: the file is not UTF-8, or the archive is damaged.
    """
    number = 0
    try:
        with path.open("rb") as raw:
            stream: Any = raw
            if path.suffix == ".gz":
                stream = gzip.GzipFile(fileobj=raw)
            elif path.suffix == ".zst":
                stream = io.BufferedReader(ZstdFile(raw), CHUNK_BYTES)
            for number, line in enumerate(io.TextIOWrapper(stream, encoding="utf-8"), 1):
                if line.strip():
                    yield number, line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise UsageError(f"{what}: not UTF-8 near line {number + 1} ({error.reason}); convert it first") from error
    except (gzip.BadGzipFile, EOFError, zstandard.ZstdError) as error:
        raise UsageError(f"{what}: damaged archive after line {number} ({error})") from error


def json_rows(path: Path, what: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and object of each line of a JSONL file.

    Raises:
        UsageError: the file is not UTF-8, the archive is damaged, or a line is not a JSON object.
    """
    for number, line in text_lines(path, what):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UsageError(f"{what}: line {number} is not valid JSON ({error})") from error
        if not isinstance(row, dict):
            raise UsageError(f"{what}: line {number} is not a JSON object")
        yield number, row
