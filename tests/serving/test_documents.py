"""Reading documents in chunks of any size gives the lines of the file."""

import gzip
import json
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from kdnas.serving.documents import find_source, read_documents, read_text
from kdnas.text import lines


@settings(max_examples=60)
@given(
    texts=st.lists(
        st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]), max_size=20), min_size=1
    ),
    end=st.sampled_from([b"", b"\n"]),
    chunk=st.integers(1, 17),
    compression=st.sampled_from(["", "gz", "zst"]),
    skip=st.integers(0, 5),
)
def test_chunks_of_any_size_give_the_same_lines(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], end: bytes, chunk: int, compression: str, skip: int
) -> None:
    pack = {"": bytes, "gz": gzip.compress, "zst": zstandard.compress}[compression]
    path = tmp_path_factory.mktemp("lines") / ("a.txt" + (f".{compression}" if compression else ""))
    path.write_bytes(pack("\n".join(["\ufeff" + texts[0], *texts[1:]]).encode() + end))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "CHUNK_BYTES", {compression: chunk})
        found = list(read_documents(find_source(path), "text", skip))
    expected = [(number, line) for number, line in enumerate(texts, 1) if line.encode().strip() and number > skip]
    assert [(document.line, document.text) for document in found] == expected
    positions = [document.position for document in found]
    assert positions == sorted(positions)
    assert all(0 < position <= path.stat().st_size for position in positions)


def test_a_line_over_the_limit_is_reported_without_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 50)
    monkeypatch.setattr(lines, "CHUNK_BYTES", {"": 16})
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "short"}\n{"text": "' + "x" * 500 + '"}\n{"text": "after"}\n')
    found = list(read_documents(find_source(path), "text"))
    assert [document.text for document in found] == ["short", None, "after"]
    assert (found[1].line, found[1].problem, found[1].raw) == (2, "longer than 50 bytes", b"")


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.integers()), st.text())
def test_a_record_gives_its_text_or_a_reason(others: dict[str, int], text: str) -> None:
    line = json.dumps(others | {"text": text}).encode()
    found, problem = read_text(line, "text")
    encodable = not any("\ud800" <= character <= "\udfff" for character in text)
    assert (found, bool(problem)) == ((text, False) if encodable else (None, True))
    assert read_text(line[:-1], "text")[0] is None
    assert read_text(line, None) == (line.decode(), "")


@pytest.mark.parametrize("compression", ["gz", "zst"])
def test_a_line_over_the_limit_in_an_archive_takes_bounded_memory(tmp_path: Path, compression: str) -> None:
    pack = {"gz": gzip.compress, "zst": zstandard.compress}[compression]
    path = tmp_path / f"a.txt.{compression}"
    path.write_bytes(pack(b"before\n" + b"x" * 50_000_000 + b"\nafter\n"))
    tracemalloc.start()
    found = list(read_documents(find_source(path), "text"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [document.text for document in found] == ["before", None, "after"]
    assert found[1].problem == f"longer than {16 * 2**20} bytes"
    assert peak < 35e6


def test_a_row_over_the_limit_in_parquet_is_reported_without_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 50)
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["short", "x" * 40, None, "after"], "more": ["y", "z" * 20, "", "y"]}), path)
    found = list(read_documents(find_source(path), "text"))
    assert [document.text for document in found] == ["short", None, None, "after"]
    assert (found[1].line, found[1].problem, found[1].raw) == (2, "longer than 50 bytes", b"")
    assert "not text" in found[2].problem
