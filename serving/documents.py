"""Reading documents one by one: JSONL, text or Parquet, plain, gzip or zstd, with bounded memory."""

import base64
import codecs
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import zstandard

from kdnas.errors import KdnasError, UsageError
from kdnas.extras import require_extras

# A longer line is quarantined without being held in memory.
MAX_LINE_BYTES = 16 * 2**20
# Compressed bytes read at once; few, since they can expand to many.
CHUNK_BYTES = {"": 2**20, "gz": 2**14, "zst": 2**13}


@dataclass(frozen=True)
class Source:
    """An input file, with the kind of its records and its compression, which follow from its name.

    Args:
        path: the file.
        kind: jsonl, txt or parquet.
        compression: gz, zst or empty.
    """

    path: Path
    kind: str
    compression: str

    @property
    def suffix(self) -> str:
        """Suffix of the files of kept documents: that of the input, or `.jsonl.zst` for Parquet."""
        if self.kind == "parquet":
            return ".jsonl.zst"
        return f".{self.kind}" + (f".{self.compression}" if self.compression else "")


@dataclass(frozen=True)
class Document:
    """One record of the input.

    Args:
        line: line number from 1 (row number in Parquet).
        raw: unchanged bytes of the line, without the line end.
        text: the text to score; None if the record cannot be read.
        problem: why the record cannot be read, else empty.
        position: bytes of the input file read so far.
    """

    line: int
    raw: bytes
    text: str | None
    problem: str
    position: int


def find_source(path: Path) -> Source:
    """Check that an input exists, is not empty and has a known file type.

    Raises:
        UsageError: the input does not exist, is empty or has an unknown file type.
    """
    if path.is_dir():
        raise UsageError(f"input '{path}': this is a folder; give one .jsonl, .txt or .parquet file")
    if not path.is_file():
        raise UsageError(f"input '{path}': no such file")
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise UsageError(f"input '{path}': cannot be read ({error.strerror})") from error
    if empty:
        raise UsageError(f"input '{path}': it is empty; give a file with at least one document")
    name = path.name.lower()
    compression = next((ending for ending in ("gz", "zst") if name.endswith("." + ending)), "")
    kind = Path(name.removesuffix("." + compression) if compression else name).suffix.lstrip(".")
    kind = {"json": "jsonl", "ndjson": "jsonl"}.get(kind, kind)
    if kind not in ("jsonl", "txt", "parquet") or (kind == "parquet" and compression):
        raise UsageError(
            f"input '{path}': unknown file type; give .jsonl or .txt (plain, .gz or .zst) or .parquet, "
            "with one JSON object or one text per line"
        )
    return Source(path, kind, compression)


def read_documents(source: Source, column: str, skip: int = 0) -> Iterator[Document]:
    """Documents of an input in order, without the first `skip` lines; blank lines are ignored.

    Raises:
        KdnasError: the archive is damaged, or the input is Parquet and pyarrow is not installed.
        UsageError: the Parquet file does not have the column.
    """
    if source.kind == "parquet":
        yield from _parquet_documents(source.path, column, skip)
        return
    for number, line, position in _lines(source):
        if number == 1 and line is not None:
            line = line.removeprefix(codecs.BOM_UTF8)
        if number <= skip or (line is not None and not line.strip()):
            continue
        if line is None:
            yield Document(number, b"", None, f"longer than {MAX_LINE_BYTES} bytes", position)
            continue
        text, problem = read_text(line, column if source.kind == "jsonl" else None)
        yield Document(number, line, text, problem, position)


def read_text(line: bytes, column: str | None) -> tuple[str | None, str]:
    """The text of one line and an empty string, or None and the reason why it cannot be read.

    Args:
        line: the bytes of the line.
        column: key of the text in a JSON object; None if the line itself is the text.
    """
    try:
        content = line.decode("utf-8")
    except UnicodeDecodeError as error:
        return None, f"not UTF-8: {error.reason} at byte {error.start}"
    if column is None:
        return content, ""
    try:
        record = json.loads(content)
    except (ValueError, RecursionError) as error:
        return None, f"not JSON: {error}"
    if not isinstance(record, dict):
        return None, f"not a JSON object but {_json_type(record)}"
    if column not in record:
        return None, f"no column '{column}'"
    text = record[column]
    if not isinstance(text, str):
        return None, f"column '{column}' is not text but {_json_type(text)}"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return None, f"column '{column}' contains an unpaired surrogate"
    return text, ""


def quarantined(document: Document) -> bytes:
    """JSON line of an unreadable record for the quarantine; bytes that are not UTF-8 are in base64."""
    row: dict[str, Any] = {"line": document.line, "reason": document.problem}
    try:
        row["raw"] = document.raw.decode("utf-8")
    except UnicodeDecodeError:
        row["raw_base64"] = base64.b64encode(document.raw).decode("ascii")
    return json.dumps(row, ensure_ascii=False).encode("utf-8")


def _json_type(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _lines(source: Source) -> Iterator[tuple[int, bytes | None, int]]:
    """(number, line without its end, input bytes read); None for a line over MAX_LINE_BYTES."""
    number, position = 0, 0
    held: list[bytes] = []  # pieces of the line that is not complete yet
    size = 0
    with source.path.open("rb") as file:
        for chunk, position in _chunks(file, source):
            first = 0
            while (end := chunk.find(b"\n", first)) >= 0:
                number += 1
                size += end - first
                held.append(chunk[first:end])
                yield number, _joined(held, size), position
                held, size, first = [], 0, end + 1
            size += len(chunk) - first
            if size <= MAX_LINE_BYTES:
                held.append(chunk[first:])
            else:
                held = []
    if size:
        yield number + 1, _joined(held, size), position


def _joined(pieces: list[bytes], size: int) -> bytes | None:
    return b"".join(pieces).removesuffix(b"\r") if size <= MAX_LINE_BYTES else None


def _chunks(file: BinaryIO, source: Source) -> Iterator[tuple[bytes, int]]:
    """Decompressed pieces, each with the number of file bytes read so far.

    Raises:
        KdnasError: the archive is damaged or truncated.
    """
    inflater: Any = None
    position = 0
    try:
        while data := file.read(CHUNK_BYTES[source.compression]):
            position += len(data)
            while data:
                if not source.compression:
                    yield data, position
                    break
                if inflater is None:
                    inflater = zlib.decompressobj(31) if source.compression == "gz" else _zstd_inflater()
                yield inflater.decompress(data), position
                data = b""
                if inflater.eof:  # a file may contain several archives, one after the other
                    data, inflater = inflater.unused_data, None
                    if source.compression == "gz":
                        data = data.lstrip(b"\0")
    except (zlib.error, zstandard.ZstdError) as error:
        raise KdnasError(f"input '{source.path}': damaged archive near byte {position} ({error})") from error
    if inflater is not None:
        raise KdnasError(f"input '{source.path}': the archive is truncated after byte {position}; get the whole file")


def _zstd_inflater() -> Any:
    return zstandard.ZstdDecompressor().decompressobj()


def _parquet_documents(path: Path, column: str, skip: int) -> Iterator[Document]:
    require_extras(f"input '{path}'", ("parquet",))
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise UsageError(f"input '{path}': not a Parquet file ({error})") from error
    names = file.schema_arrow.names
    if column not in names:
        raise UsageError(f"input '{path}': no column '{column}'; it has {', '.join(names)} (set --column)")
    rows, size = file.metadata.num_rows, path.stat().st_size
    number = 0
    for batch in file.iter_batches(batch_size=256):
        if number + batch.num_rows <= skip:
            number += batch.num_rows
            continue
        for record in batch.to_pylist():
            number += 1
            if number > skip:
                raw = json.dumps(record, ensure_ascii=False, default=str).encode("utf-8", "surrogatepass")
                text, problem = read_text(raw, column)
                yield Document(number, raw, text, problem, size * number // rows)
