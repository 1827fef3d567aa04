"""Lines of text files: the same for every compression; damaged files are errors."""

import gzip
import json
from pathlib import Path

import pytest
import zstandard

from kdnas.errors import UsageError
from kdnas.text.lines import json_rows, text_lines

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
