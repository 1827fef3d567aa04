"""Labelled inputs for measuring the loss of an export: accepted and refused files."""

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdnas.errors import UsageError
from kdnas.export.labelled import Labelled, read_labelled

NAMES = ["clean", "rude"]
TEXTS, TOKENS, QUESTIONS = "text-classification", "token-classification", "question-answering"


def write(path: Path, rows: list[Any]) -> Path:
    text = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_names_and_numbers_and_a_sample_of_each_language_are_read(tmp_path: Path, name: str) -> None:
    rows: list[Any] = [{"text": f"t{index}", "label": index % 2, "language": "de"} for index in range(150)]
    rows += ["", *({"text": f"u{index}", "label": "rude"} for index in range(60))]
    found = read_labelled(write(tmp_path / name, rows), TEXTS, NAMES, 80)
    assert len(found.inputs) == 140
    numbers = [int(text[1:]) for text in found.inputs[:80]]
    assert numbers == sorted(numbers)  # in the order of the file
    assert min(numbers) < 30 < 120 < max(numbers)  # from all of it
    assert found.truths[:80] == [number % 2 for number in numbers]
    assert set(found.truths[80:]) == {1}
    assert read_labelled(tmp_path / name, TEXTS, NAMES, 80) == found
    assert found.languages == ["de"] * 80 + [""] * 60


def test_a_label_name_that_is_a_number_takes_precedence_over_the_index(tmp_path: Path) -> None:
    rows = [{"text": f"t{index}", "label": "1"} for index in range(100)]
    assert set(read_labelled(write(tmp_path / "rows.jsonl", rows), TEXTS, ["1", "0"], 200).truths) == {0}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": "a", "label": 0}] * 99, "99 rows; at least 100"),
        ([{"text": "a", "label": "odd"}], "line 1 has label 'odd'; allowed are clean, rude"),
        ([{"text": "a", "label": 2}], "label '2'"),
        ([{"text": "a"}], r"line 1 has the wrong format \('label'\)"),
        ([{"text": 3, "label": 0}], "a text is not a string"),
        ([{"text": "a", "label": None}], "neither a name nor a number"),
        ([{"text": "a", "label": True}], "neither a name nor a number"),
        ([{"text": "a", "label": 0, "language": 3}], "a language that is not a string"),
        (["[1]"], "line 1 is not a JSON object"),
        (["{"], "line 1 is not valid JSON"),
        (["\udcff".encode("utf-8", "surrogateescape").decode("latin-1")], "is not valid JSON"),
    ],
)
def test_invalid_rows_are_refused(tmp_path: Path, rows: list[Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_labelled(write(tmp_path / "rows.jsonl", rows), TEXTS, NAMES, 100)


def test_words_and_their_classes_are_read(tmp_path: Path) -> None:
    row = {"tokens": ["Ada", "wrote"], "ner_tags": ["rude", 0], "language": "en"}
    found = read_labelled(write(tmp_path / "rows.jsonl", [row] * 100), TOKENS, NAMES, 100)
    assert (found.inputs[0], found.truths[0], found.languages[0]) == (["Ada", "wrote"], [1, 0], "en")


def test_questions_are_read_and_those_without_an_answer_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"question": "Who?", "context": "Ada did.", "answers": {"text": ["Ada"], "answer_start": [0]}}
    none = row | {"answers": {"text": [], "answer_start": []}}
    empty = row | {"answers": {"text": [""], "answer_start": [0]}}
    found = read_labelled(write(tmp_path / "rows.jsonl", [row, none, row, empty] * 50), QUESTIONS, [], 300)
    assert len(found.inputs) == 100
    assert (found.inputs[0], found.truths[0]) == (("Who?", "Ada did."), ["Ada"])
    assert "100 questions without an answer are left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("task", "row", "message"),
    [
        (TOKENS, {"tokens": ["a", "b"], "ner_tags": [0]}, "2 tokens, 1 ner_tags"),
        (TOKENS, {"tokens": ["a", 1], "ner_tags": [0, 0]}, "a text is not a string"),
        (TOKENS, {"tokens": ["a"], "ner_tags": [7]}, "label '7'; allowed are clean, rude"),
        (TOKENS, {"tokens": ["a"], "ner_tags": 7}, "wrong format"),
        (TOKENS, {"text": "a", "label": 0}, '"ner_tags"'),
        (QUESTIONS, {"question": "a", "context": "b"}, "'answers'"),
        (QUESTIONS, {"question": "a", "context": "b", "answers": ["c"]}, "wrong format"),
        (QUESTIONS, {"question": "a", "context": None, "answers": {"text": ["c"]}}, "a text is not a string"),
    ],
)
def test_rows_in_the_wrong_format_are_refused(tmp_path: Path, task: str, row: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_labelled(write(tmp_path / "rows.jsonl", [row]), task, NAMES, 100)


def test_missing_files_other_file_types_and_truncated_archives_are_refused(tmp_path: Path) -> None:
    half = tmp_path / "half.jsonl.gz"
    half.write_bytes(gzip.compress(b'{"text": "a", "label": 0}' * 100)[:40])
    for path in (tmp_path / "none.jsonl", write(tmp_path / "rows.csv", ["a,b"]), half):
        with pytest.raises(UsageError, match="expected are"):
            read_labelled(path, TEXTS, NAMES, 100)


def test_halves_are_disjoint_and_even_in_every_language_and_label() -> None:
    rows = [(f"text {number}", number % 3, "de" if number % 5 else "sw") for number in range(301)] + [("one", 0, "fr")]
    labelled = Labelled(*map(list, zip(*rows, strict=True)))
    dev, test = labelled.halves()
    assert sorted(dev + test) == list(range(len(rows)))
    for language in ("de", "sw"):
        for label in range(3):
            counts = [sum(rows[row][1:] == (label, language) for row in half) for half in (dev, test)]
            assert abs(counts[0] - counts[1]) <= 1
    assert len(rows) - 1 in test  # the only row of its language
    order = np.random.default_rng(0).permutation(len(rows)).tolist()
    again = labelled.rows(order).halves()[0]
    assert {order[row] for row in again} == set(dev)  # the order of the file has no influence


def test_halves_of_words_and_of_questions() -> None:
    words = Labelled([["a", str(n)] for n in range(40)], [[0, n % 2] for n in range(40)], [""] * 40)
    for half in words.halves():
        assert sum(words.truths[row][1] for row in half) == 10
    asked = Labelled([("Who?", str(n)) for n in range(41)], [["Ada"]] * 41, [""] * 41)
    assert list(map(len, asked.halves())) == [20, 21]


def test_independent_labels_are_read_with_unknown_ones(tmp_path: Path) -> None:
    rows = [{"text": f"t{index}", "labels": {"rude": index % 2}} for index in range(100)]
    rows += [{"text": f"u{index}", "labels": {"rude": 1, "clean": False}} for index in range(20)]
    found = read_labelled(write(tmp_path / "rows.jsonl", rows), TEXTS, NAMES, 200, multi_label=True)
    assert set(found.truths) == {(-1, 0), (-1, 1), (0, 1)}
    dev, test = (Counter(found.truths[row] for row in half) for half in found.halves())
    assert all(abs(dev[truth] - test[truth]) <= 1 for truth in set(found.truths))  # each pattern is split evenly


@pytest.mark.parametrize(
    ("labels", "message"),
    [({"hostile": 1}, "label 'hostile'"), ({"rude": 2}, "neither 0 nor 1"), ({}, "no names"), ("rude", "no names")],
)
def test_wrong_independent_labels_are_refused(tmp_path: Path, labels: Any, message: str) -> None:
    path = write(tmp_path / "rows.jsonl", [{"text": "a", "labels": labels}] * 100)
    with pytest.raises(UsageError, match=message):
        read_labelled(path, TEXTS, NAMES, 100, multi_label=True)
