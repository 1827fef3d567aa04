"""Lines and JSON objects of text files, plain, .gz or .zst, in bounded memory; an error names the file and the line."""

import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import zstandard

from kdnas.errors import KdnasError, UsageError

# A longer line is never held in memory: readers refuse or quarantine it.
MAX_LINE_BYTES = 16 * 2**20
# Bytes read at once; few, since compressed ones can expand to many.
CHUNK_BYTES = {"": 2**20, "gz": 2**14, "zst": 2**13}
# Decompressed bytes of gzip at once.
PIECE_BYTES = 2**20
# Compressed bytes of zstd at once: a block of 128 KiB of one character takes four, so these are at most 8 MiB.
ZSTD_BYTES = 2**8


class ArchiveError(KdnasError):
    """A compressed file is damaged or truncated. The message does not name the file."""


def bounded_lines(file: BinaryIO, compression: str = "") -> Iterator[tuple[int, bytes | None, int]]:
    """Number from 1, bytes without the line end, and decompressed bytes before the line, for each line.

    The bytes are None for a line over `MAX_LINE_BYTES`, which is skipped without being held in memory.

    Args:
        file: the file, open for reading; it is read from its present position.
        compression: gz, zst or empty.

    Raises:
        ArchiveError: the archive is damaged or truncated.
    """
    number, start = 0, 0
    held: list[bytes] = []  # pieces of the line that is not complete yet
    size = 0
    for chunk in _chunks(file, compression):
        first = 0
        while (end := chunk.find(b"\n", first)) >= 0:
            number += 1
            size += end - first
            if size <= MAX_LINE_BYTES:
                held.append(chunk[first:end])
            yield number, _joined(held, size), start
            start += size + 1
            held, size, first = [], 0, end + 1
        size += len(chunk) - first
        if size <= MAX_LINE_BYTES:
            held.append(chunk[first:])
        else:
            held = []
    if size:
        yield number + 1, _joined(held, size), start


def too_long() -> str:
    """Why a line is refused or quarantined."""
    return f"longer than {MAX_LINE_BYTES} bytes"


def text_lines(path: Path, what: str) -> Iterator[tuple[int, str]]:
    """Number, from 1, and text of each line that is not blank, without the line end (also `\\r` alone).

    Args:
        path: a text file; .gz and .zst are decompressed.
        what: name of the file in error messages, such as `corpus 'a.txt'`.

    Raises:
        UsageError: the file is not UTF-8, the archive is damaged, or a line is longer than `MAX_LINE_BYTES`.
    """
    number = 0
    compression = path.suffix[1:] if path.suffix in (".gz", ".zst") else ""
    try:
        with path.open("rb") as file:
            for _, line, _ in bounded_lines(file, compression):
                if line is None:
                    raise UsageError(
                        f"{what}: line {number + 1} is {too_long()}; give one text or JSON object per line"
                    )
                for part in line.decode("utf-8").split("\r"):
                    number += 1
                    if part.strip():
                        yield number, part
    except UnicodeDecodeError as error:
        raise UsageError(f"{what}: not UTF-8 near line {number + 1} ({error.reason}); convert it first") from error
    except ArchiveError as error:
        raise UsageError(f"{what}: damaged archive after line {number} ({error})") from error


def json_rows(path: Path, what: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and object of each line of a JSONL file.

    Raises:
        UsageError: as `text_lines`, or a line is not a JSON object.
    """
    for number, line in text_lines(path, what):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{what}: line {number} is not valid JSON ({error})") from error
        if not isinstance(row, dict):
            raise UsageError(f"{what}: line {number} is not a JSON object")
        yield number, row


def _joined(pieces: list[bytes], size: int) -> bytes | None:
    return b"".join(pieces).removesuffix(b"\r") if size <= MAX_LINE_BYTES else None


def _chunks(file: BinaryIO, compression: str) -> Iterator[bytes]:
    """Decompressed pieces of the file.

    Raises:
        ArchiveError: the archive is damaged or truncated.
    """
    archives = _Archives(compression) if compression else None
    position = 0
    try:
        while data := file.read(CHUNK_BYTES[compression]):
            position += len(data)
            yield from archives.pieces(data) if archives else (data,)
    except (zlib.error, zstandard.ZstdError) as error:
        raise ArchiveError(f"damaged archive near byte {position} ({error})") from error
    if archives and archives.inflater is not None:
        raise ArchiveError(f"the archive is truncated after byte {position}; get the whole file")


class _Archives:
    """Decompresses a file of one or several archives, one after the other, chunk by chunk.

    Args:
        compression: gz or zst.
    """

    def __init__(self, compression: str) -> None:
        self._gzip = compression == "gz"
        self._begun = False
        self.inflater: Any = None  # of the archive that is not complete yet

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Decompressed pieces of the next bytes of the file, none of them large."""
        full = False  # zlib may hold more output than it was allowed to return
        while data or full:
            if self.inflater is None:
                if self._gzip and self._begun:
                    data = data.lstrip(b"\0")  # padding between archives
                    if not data:
                        return
                self._begun = True
                self.inflater = zlib.decompressobj(31) if self._gzip else zstandard.ZstdDecompressor().decompressobj()
            if self._gzip:
                piece, later = self.inflater.decompress(data, PIECE_BYTES), b""
                data, full = self.inflater.unconsumed_tail, len(piece) == PIECE_BYTES
            else:
                piece, later = self.inflater.decompress(data[:ZSTD_BYTES]), data[ZSTD_BYTES:]
                data = later
            if self.inflater.eof:
                data, full = self.inflater.unused_data + later, False
                self.inflater = None
            yield piece
