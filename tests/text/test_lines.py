"""Lines of text files: the same for every compression; damaged files are errors."""

import gzip
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from kdnas.errors import UsageError
from kdnas.evaluation.hap import hap_rows
from kdnas.export.labelled import read_labelled
from kdnas.text import lines
from kdnas.text.lines import json_rows, text_lines
from kdnas.text.readers import TextOptions, read_rows

TEXTS = [f"sentence {number}: Grüße, 你好" for number in range(20_000)]


def compressed(data: bytes, suffix: str) -> bytes:
    """The data as two concatenated archives, as from `cat`."""
    half = len(data) // 2
    if suffix == ".gz":
        return gzip.compress(data[:half]) + gzip.compress(data[half:])
    if suffix == ".zst":
        return b"".join(zstandard.ZstdCompressor().compress(part) for part in (data[:half], data[half:]))
    return data


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_lines_of_all_concatenated_archives_are_read(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"a.txt{suffix}"
    file.write_bytes(compressed(("\r\n".join(["", *TEXTS]) + "\n\n").encode(), suffix))
    assert list(text_lines(file, "a")) == list(enumerate(TEXTS, 2))


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_truncated_archive_is_rejected(tmp_path: Path, suffix: str, kept: float) -> None:
    data = compressed("\n".join(TEXTS).encode(), suffix)
    file = tmp_path / f"a.txt{suffix}"
    file.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(UsageError, match=r"the file: damaged archive after line \d+"):
        list(text_lines(file, "the file"))


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_file_that_is_not_an_archive_is_rejected(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"a.txt{suffix}"
    file.write_text("plain text")
    with pytest.raises(UsageError, match="damaged archive after line 0"):
        list(text_lines(file, "a"))


@pytest.mark.parametrize(
    ("line", "problem"),
    [(b"{", "is not valid JSON"), (b"[1]", "is not a JSON object"), (b'{"a": "\xff"}', "not UTF-8")],
)
def test_malformed_line_is_reported(tmp_path: Path, line: bytes, problem: str) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(json.dumps({"a": 1}).encode() + b"\n\n" + line + b"\n")
    with pytest.raises(UsageError, match=f"the file: .*{problem}|the file: {problem}"):
        list(json_rows(file, "the file"))


def test_objects_have_their_line_numbers(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('\n{"a": 1}\n\n{"a": 2}')
    assert list(json_rows(file, "a")) == [(2, {"a": 1}), (4, {"a": 2})]


READERS: dict[str, Callable[[Path], Any]] = {
    "text": lambda file: list(text_lines(file, "a")),
    "JSON": lambda file: list(json_rows(file, "a")),
    "corpus": lambda file: list(read_rows(str(file), TextOptions())),
    "labelled": lambda file: read_labelled(file, "text-classification", ["no", "yes"], 100),
    "HAP": lambda file: list(hap_rows(file)),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_every_reader_refuses_a_very_long_line_with_bounded_memory(tmp_path: Path, suffix: str, reader: str) -> None:
    file = tmp_path / f"a.jsonl{suffix}"
    pack = {".gz": gzip.compress, ".zst": zstandard.compress}[suffix]
    file.write_bytes(pack(b'{"text": "a", "label": 0}\n{"text": "' + b"x" * 50_000_000 + b'", "label": 1}\n'))
    tracemalloc.start()
    with pytest.raises(UsageError, match=f"line 2 is longer than {16 * 2**20} bytes"):
        READERS[reader](file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 35e6


def test_a_very_long_row_of_parquet_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 50)
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["short", "x" * 60, "after"]}), file)
    with pytest.raises(UsageError, match="row 2 is longer than 50 bytes"):
        list(read_rows(str(file), TextOptions()))


def test_a_carriage_return_alone_ends_a_line(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(b"one\rtwo\r\n\nthree\r")
    assert list(text_lines(file, "a")) == [(1, "one"), (2, "two"), (4, "three")]


def test_padding_after_an_archive_is_ignored(tmp_path: Path) -> None:
    file = tmp_path / "a.txt.gz"
    file.write_bytes(gzip.compress(b"one\n") + b"\0" * 50_000 + gzip.compress(b"two") + b"\0" * 9)
    assert list(text_lines(file, "a")) == [(1, "one"), (2, "two")]
