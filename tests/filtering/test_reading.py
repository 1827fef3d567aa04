"""Records of JSON lines: the fast reader gives what Python's own gives, or leaves the line to it."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdnas.filtering.inputs import find_inputs
from kdnas.filtering.options import FilterOptions
from kdnas.filtering.plan import cut_units
from kdnas.filtering.reading import Document, parsed, read_chunks

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


def documents_of(path: Path) -> list[Document]:
    options = FilterOptions()
    units = cut_units(find_inputs((str(path),)), options.unit_bytes)
    return [document for unit in units for chunk in read_chunks(unit, options) for document in chunk.documents]


@given(VALUES, st.booleans())
def test_a_line_is_read_as_by_the_standard_library(value: Any, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    odd: list[str] = []
    expected = json.loads(text, parse_constant=lambda word: odd.append(word) or float(word))  # type: ignore[func-returns-value]
    found, strict = parsed(text.encode("utf-8"), ())
    assert repr(found) == repr(expected)
    assert strict == (not odd)


@given(st.binary(max_size=30))
def test_what_is_not_json_raises_a_value_error(line: bytes) -> None:
    try:
        expected = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        with pytest.raises((json.JSONDecodeError, UnicodeDecodeError, RecursionError)):
            parsed(line, ())
    else:
        assert repr(parsed(line, ())[0]) == repr(expected)


def test_long_numbers_keep_their_digits_as_names(tmp_path: Path) -> None:
    path = tmp_path / "docs.jsonl"
    path.write_text('{"id": 123456789012345678901234567890, "text": "a", "lang": 1e3}\n{"id": 1.5, "text": "b"}\n')
    first, second = documents_of(path)
    assert (first.name, first.language) == (123456789012345678901234567890, "")
    assert second.name == f"{path}:{second.position}"


def test_a_line_that_nests_too_deep_is_not_json(tmp_path: Path) -> None:
    path = tmp_path / "docs.jsonl"
    path.write_text('{"text": "a", "x": ' + "[" * 100_000 + "]" * 100_000 + "}\n")
    (document,) = documents_of(path)
    assert document.problem.startswith("not JSON: ")
