"""Samples: a command tokenises only as many sentences as it needs."""

import json
from itertools import islice
from pathlib import Path

import pytest

from kdnas.models.teacher import Teacher
from kdnas.text.corpus import build_corpus, sample_corpus, sentences_needed
from kdnas.text.readers import TextOptions, TextRow
from kdnas.text.sample import SpreadByLanguage, spread_rows, spread_sentences

TEXTS = [f"This is sentence number {number} of a long file." for number in range(2000)]
TEXT = TextOptions(validation_fraction=0.2)


@pytest.fixture
def source(tmp_path: Path) -> str:
    file = tmp_path / "long.jsonl"
    rows = ({"text": text, "lang": "de" if number else "sw"} for number, text in enumerate(TEXTS))
    file.write_text("\n".join(map(json.dumps, rows)))
    return str(file)


def test_sample_has_the_requested_size_and_spans_the_file(source: str, tmp_path: Path, teacher: Teacher) -> None:
    found = sample_corpus(tmp_path, source, TEXT, teacher, 300)
    assert found.sampled
    assert len(found.train) + len(found.validation) == found.artifact.results["sentences"]
    assert found.artifact.results["sentences"] - 300 in (0, 1)  # plus the only "sw" sentence if it was not drawn
    assert len(found.validation) > 20
    assert {*found.train.languages, *found.validation.languages} == {"de", "sw"}
    texts = found.train.texts
    assert sum(int(text.split()[4]) >= 1000 for text in texts) > len(texts) / 4  # not only from the start of the file
    assert sample_corpus(tmp_path, source, TEXT, teacher, 300) == found


def test_existing_corpus_is_used_instead_of_a_sample(source: str, tmp_path: Path, teacher: Teacher) -> None:
    whole = build_corpus(tmp_path, source, TEXT, teacher)
    found = sample_corpus(tmp_path, source, TEXT, teacher, 300)
    assert found == whole
    assert not found.sampled


def test_models_with_the_same_tokenizer_share_a_corpus(
    source: str, tmp_path: Path, teacher: Teacher, tiny_teacher: Teacher
) -> None:
    same = (teacher.path / "tokenizer.json").read_bytes() == (tiny_teacher.path / "tokenizer.json").read_bytes()
    one, other = (build_corpus(tmp_path, source, TEXT, model).artifact.path for model in (teacher, tiny_teacher))
    assert (one == other) == same


def test_sample_of_a_short_source_is_the_whole_source(source: str, tmp_path: Path, teacher: Teacher) -> None:
    whole = build_corpus(tmp_path / "whole", source, TEXT, teacher)
    assert sample_corpus(tmp_path, source, TEXT, teacher, 5000).digest == whole.digest


def test_sampled_rows_keep_their_order() -> None:
    rows = [TextRow(text, "", text) for text in TEXTS]
    chosen = list(spread_rows(rows, 100))
    assert len(chosen) == 100
    assert chosen == [row for row in rows if row in set(chosen)]
    assert list(spread_rows(rows[:5], 100)) == rows[:5]


@pytest.mark.slow
def test_sampled_docstrings_come_from_several_packages() -> None:
    rows = list(islice(spread_sentences(), 400))
    assert len({row.topic for row in rows}) > 3
    assert rows == list(islice(spread_sentences(), 400))


def test_sample_size_suffices_for_both_splits() -> None:
    assert sentences_needed(300, 200, 0.1) == 2500
    assert sentences_needed(10_000, 0, 0.2) * 0.8 > 10_000


def test_a_sample_by_language_is_spread_over_the_file_and_does_not_depend_on_the_other_rows() -> None:
    sample: SpreadByLanguage[int] = SpreadByLanguage(100)
    for number, text in enumerate(TEXTS):
        sample.add("de" if number % 20 else "sw", text, number)
    rows = sample.rows()
    assert rows == sorted(rows)
    assert sum(number % 20 == 0 for number in rows) == 100 == len(rows) / 2
    assert sum(number >= 1000 for number in rows) > 60
    alone: SpreadByLanguage[int] = SpreadByLanguage(100)
    for number in range(1, len(TEXTS)):
        if number % 20:
            alone.add("de", TEXTS[number], number)
    assert alone.rows() == [number for number in rows if number % 20]
