"""Labelled texts for judging an export: what is read, and what is refused."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from export.labelled import read_labelled
from kdnas.errors import UsageError

NAMES = ["clean", "rude"]


def write(path: Path, rows: list[Any]) -> Path:
    text = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_reads_names_and_numbers_and_the_first_rows_of_each_language(tmp_path: Path, name: str) -> None:
    rows: list[Any] = [{"text": f"t{place}", "label": place % 2, "language": "de"} for place in range(150)]
    rows += ["", *({"text": f"u{place}", "label": "rude"} for place in range(60))]
    found = read_labelled(write(tmp_path / name, rows), NAMES, 80)
    assert len(found.texts) == 140
    assert found.labels[:4] == [0, 1, 0, 1]
    assert set(found.labels[80:]) == {1}
    assert found.languages == ["de"] * 80 + [""] * 60


def test_a_name_that_is_a_number_wins_over_the_place(tmp_path: Path) -> None:
    rows = [{"text": f"t{place}", "label": "1"} for place in range(100)]
    assert set(read_labelled(write(tmp_path / "rows.jsonl", rows), ["1", "0"], 200).labels) == {0}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": "a", "label": 0}] * 99, "99 rows; at least 100"),
        ([{"text": "a", "label": "odd"}], "line 1 has label 'odd'; the model's are clean, rude"),
        ([{"text": "a", "label": 2}], "label '2'"),
        ([{"text": "a"}], "no text or no label"),
        ([{"text": 3, "label": 0}], "no text or no label"),
        ([{"text": "a", "label": 0, "language": 3}], "no text or no label"),
        (["[1]"], "line 1 is not an object"),
        (["{"], "cannot be read"),
        (["\udcff".encode("utf-8", "surrogateescape").decode("latin-1")], "cannot be read"),
    ],
)
def test_refuses(tmp_path: Path, rows: list[Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_labelled(write(tmp_path / "rows.jsonl", rows), NAMES, 100)


def test_refuses_no_file_another_kind_and_half_a_gz(tmp_path: Path) -> None:
    half = tmp_path / "half.jsonl.gz"
    half.write_bytes(gzip.compress(b'{"text": "a", "label": 0}' * 100)[:40])
    for path in (tmp_path / "none.jsonl", write(tmp_path / "rows.csv", ["a,b"]), half):
        with pytest.raises(UsageError, match="wanted are"):
            read_labelled(path, NAMES, 100)
