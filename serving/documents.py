"""Reading documents one by one: JSONL, text or Parquet, plain, gzip or zstd, with bounded memory."""

import base64
import codecs
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdnas.errors import KdnasError, UsageError
from kdnas.extras import require_extras
from kdnas.text.lines import ArchiveError, bounded_lines, too_long
from kdnas.text.parquet import open_parquet, parquet_batches


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
    try:
        for number, line, position in bounded_lines(source.path, source.compression):
            if number == 1 and line is not None:
                line = line.removeprefix(codecs.BOM_UTF8)
            if number <= skip or (line is not None and not line.strip()):
                continue
            if line is None:
                yield Document(number, b"", None, too_long(), position)
                continue
            text, problem = read_text(line, column if source.kind == "jsonl" else None)
            yield Document(number, line, text, problem, position)
    except ArchiveError as error:
        raise KdnasError(f"input '{source.path}': {error}") from error


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


def _parquet_documents(path: Path, column: str, skip: int) -> Iterator[Document]:
    require_extras(f"input '{path}'", ("parquet",))
    file = open_parquet(path, f"input '{path}'")
    names = file.schema_arrow.names
    if column not in names:
        raise UsageError(f"input '{path}': no column '{column}'; it has {', '.join(names)} (set --column)")
    rows, size = file.metadata.num_rows, path.stat().st_size
    number = 0
    for batch in parquet_batches(file):
        for record in batch:
            number += 1
            if number <= skip:
                continue
            position = size * number // rows
            if record is None:
                yield Document(number, b"", None, too_long(), position)
                continue
            raw = json.dumps(record, ensure_ascii=False, default=str).encode("utf-8", "surrogatepass")
            text, problem = read_text(raw, column)
            yield Document(number, raw, text, problem, position)
