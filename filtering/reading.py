"""Documents of a unit in chunks. A record that cannot be read becomes a document with a problem; nothing is left out."""

import base64
import codecs
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, BinaryIO

import orjson

from kdnas.errors import UsageError
from kdnas.filtering.inputs import opened
from kdnas.filtering.options import FilterOptions
from kdnas.filtering.plan import Segment, Unit
from kdnas.text.lines import MAX_LINE_BYTES, ArchiveError, bounded_lines, too_long
from kdnas.text.parquet import open_parquet

CHUNK_BYTES = 2**21
CHUNK_DOCUMENTS = 2048
PIECE_UNITS = 4 / 3  # a unit that is longer than this many planned ones is written in pieces: a large archive


@dataclass(frozen=True)
class Document:
    """One record of the input.

    Args:
        file: path or URL of its file.
        position: byte of the file, after decompression, where its line starts; of Parquet, the row from 0.
        raw: unchanged bytes of the line, without the line end; empty in Parquet.
        text: the text to score; None if the record cannot be read.
        problem: why the record cannot be read, else empty.
        name: value of the id column, else `FILE:POSITION`.
        language: value of the language column, else empty.
        rows: number of rows that the record stands for: more than one for a damaged part of a Parquet file.
        strict: whether the line is JSON without NaN and Infinity.
    """

    file: str
    position: int
    raw: bytes
    text: str | None
    problem: str = ""
    name: Any = None
    language: str = ""
    rows: int = 1
    strict: bool = True


@dataclass(frozen=True)
class Chunk:
    """Neighbouring documents of a unit.

    Args:
        piece: index of the piece of the unit's output that they belong to.
        bytes: bytes of the documents.
        documents: the documents, in order.
        batch: the rows of a Parquet file, one for each document, as `pyarrow.RecordBatch`; None for lines and damaged parts.
        codec: compression of the Parquet file's columns.
    """

    piece: int
    bytes: int
    documents: list[Document] = field(repr=False)
    batch: Any = None
    codec: str = "snappy"

    @property
    def languages(self) -> list[str]:
        """Languages of the documents with text."""
        return [one.language for one in self.documents if one.text is not None]


def read_chunks(unit: Unit, options: FilterOptions, first_piece: int = 0) -> Iterator[Chunk]:
    """The documents of a unit from a piece on. The chunks and pieces depend on the unit alone.

    Raises:
        KdnasError: a file has changed, is missing, or cannot be read at all.
    """
    limit = int(options.unit_bytes * PIECE_UNITS)
    done = 0
    for segment in unit.segments:
        with opened(segment.file) as stream:
            found = (
                _batches(stream, segment, options) if segment.file.kind == "parquet" else _line_groups(stream, segment)
            )
            for size, rows in found:
                piece = done // limit
                done += size
                if piece < first_piece:
                    continue
                if isinstance(rows, Chunk):
                    yield Chunk(piece, size, rows.documents, rows.batch, rows.codec)
                else:
                    documents = [_document(segment, start, line, problem, options) for start, line, problem in rows]
                    yield Chunk(piece, size, documents)


Row = tuple[int, bytes, str]  # first byte, content, problem


def _line_groups(stream: BinaryIO, segment: Segment) -> Iterator[tuple[int, list[Row]]]:
    group: list[Row] = []
    size = 0
    for row in _lines(stream, segment):
        group.append(row)
        size += len(row[1]) + 1
        if size >= CHUNK_BYTES or len(group) == CHUNK_DOCUMENTS:
            yield size, group
            group, size = [], 0
    if group:
        yield size, group


def _lines(stream: BinaryIO, segment: Segment) -> Iterator[Row]:
    """Lines that start in the segment; blank ones are not documents. A damaged archive ends with a problem."""
    base = max(0, segment.start - 1)
    if base:
        stream.seek(base)
    start = base
    try:
        for number, line, offset in bounded_lines(stream, segment.file.compression):
            start = base + offset
            if segment.end and start >= segment.end:
                return
            if segment.start and number == 1:
                continue  # the end of a line that starts before the segment
            if line is None:
                yield start, b"", too_long()
                continue
            line = line.removeprefix(codecs.BOM_UTF8) if start == 0 else line
            if line.strip():
                yield start, line, ""
    except ArchiveError as error:
        yield start, b"", f"{error}; the lines after this byte are lost"


def _document(segment: Segment, start: int, line: bytes, problem: str, options: FilterOptions) -> Document:
    url = segment.file.url
    if problem:
        return Document(url, start, line, None, problem, f"{url}:{start}")
    try:
        if segment.file.kind == "txt":
            return Document(url, start, line, line.decode("utf-8"), name=f"{url}:{start}")
        record, strict = parsed(line, (options.id_column, options.language_column))
    except UnicodeDecodeError as error:
        return Document(url, start, line, None, f"not UTF-8: {error.reason} at byte {error.start}", f"{url}:{start}")
    except (ValueError, RecursionError) as error:
        return Document(url, start, line, None, f"not JSON: {error}", f"{url}:{start}")
    if not isinstance(record, dict):
        return Document(url, start, line, None, f"not a JSON object but {_json_type(record)}", f"{url}:{start}")
    text, reason = text_of(record, options.column)
    name = _name(record.get(options.id_column), f"{url}:{start}")
    language = str(_name(record.get(options.language_column), ""))
    return Document(url, start, line, text, reason, name, language, strict=strict)


def parsed(line: bytes, names: tuple[str, ...]) -> tuple[Any, bool]:
    """The JSON value of a line, and whether it is without NaN and Infinity.

    Args:
        line: the line.
        names: columns whose whole numbers keep all digits, however many.

    Raises:
        ValueError: it is not JSON, or not UTF-8.
        RecursionError: it is too deep.
    """
    try:
        value = orjson.loads(line)
        if not (isinstance(value, dict) and any(isinstance(value.get(column), float) for column in names)):
            return value, True  # a float may be a whole number of more than 64 bits
    except orjson.JSONDecodeError:
        pass  # not JSON, or what only Python's own reader takes: NaN, unpaired surrogates, 1e999
    odd: list[str] = []
    value = json.loads(line.decode("utf-8"), parse_constant=lambda word: odd.append(word) or float(word))  # type: ignore[func-returns-value]
    return value, not odd


def _name(value: Any, default: str) -> str | int:
    """A string, without unpaired surrogates, or a whole number; the default for any other value."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def text_of(record: dict[str, Any], column: str) -> tuple[str | None, str]:
    """The text of a record and an empty string, or None and the reason why it has none."""
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


def _json_type(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null", bytes: "bytes"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)


def json_safe(value: Any) -> Any:
    """A value as strict JSON: bytes in base64, times and decimals as strings, NaN and infinity as strings."""
    if isinstance(value, dict):
        return {str(key): json_safe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_safe(item) for item in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    return str(value) if isinstance(value, timedelta | Decimal) else value


def _batches(stream: BinaryIO, segment: Segment, options: FilterOptions) -> Iterator[tuple[int, Chunk]]:
    """Chunks of a Parquet file's row groups, and their bytes."""
    import pyarrow as pa

    url = segment.file.url
    try:
        file = open_parquet(stream, f"input '{url}'")
    except UsageError as error:
        yield _damage(url, 0, 1, str(error).partition(": ")[2])
        return
    meta = file.metadata
    first = sum(meta.row_group(index).num_rows for index in range(segment.start))
    for index in range(segment.start, segment.end):
        group = meta.row_group(index)
        names = file.schema_arrow.names
        if options.column not in names:
            yield _damage(url, first, group.num_rows, f"no column '{options.column}'; it has {', '.join(names)}")
            first += group.num_rows
            continue
        average = max(1, group.total_byte_size // max(1, group.num_rows))
        codec = group.column(0).compression.lower() if group.num_columns else "snappy"
        size = max(1, min(CHUNK_DOCUMENTS, CHUNK_BYTES // average))
        read = 0
        try:
            for batch in file.iter_batches(batch_size=size, row_groups=[index]):
                documents = _rows(url, first + read, batch, options)
                read += batch.num_rows
                yield batch.nbytes, Chunk(0, 0, documents, batch, codec)
        except (OSError, pa.ArrowException) as error:
            reason = str(error).splitlines()[0]
            yield _damage(url, first + read, group.num_rows - read, f"damaged row group {index}: {reason}")
        first += group.num_rows


def _damage(url: str, first: int, rows: int, reason: str) -> tuple[int, Chunk]:
    """A chunk that stands for rows that cannot be read."""
    return 1, Chunk(0, 0, [Document(url, first, b"", None, reason, f"{url}:{first}", rows=rows)])


def _rows(url: str, first: int, batch: Any, options: FilterOptions) -> list[Document]:
    columns = batch.schema.names
    texts = batch.column(options.column).to_pylist() if _is_text(batch.schema.field(options.column).type) else None
    names, languages = (
        batch.column(column).to_pylist() if column in columns else [None] * batch.num_rows
        for column in (options.id_column, options.language_column)
    )
    documents = []
    for row in range(batch.num_rows):
        kind = batch.schema.field(options.column).type
        text, problem = (None, f"column '{options.column}' is not text but {kind}")
        if texts is not None:
            text, problem = text_of({options.column: texts[row]}, options.column)
        if text is not None and len(text) > MAX_LINE_BYTES:
            text, problem = None, too_long()
        raw = (
            b""
            if text is not None or problem == too_long()
            else json.dumps(json_safe(batch.slice(row, 1).to_pylist()[0])).encode()
        )
        name, language = _name(names[row], f"{url}:{first + row}"), str(_name(languages[row], ""))
        documents.append(Document(url, first + row, raw, text, problem, name, language))
    return documents


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
