"""Documents as passages: cut at the ends of sentences, within the tokens of the model, and paired with their neighbours."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdnas.distill.pairs import partners_of
from kdnas.errors import UsageError
from kdnas.models.teacher import Teacher
from kdnas.text.corpus import build_corpus
from kdnas.text.passages import cut
from kdnas.text.readers import TextOptions, TextRow, read_rows


def words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def test_passages_of_a_hand_worked_text() -> None:
    text = "One two three. Four five! Six seven eight nine?\nTen e.g. eleven.  Twelve\n\n thirteen."
    assert cut(text, 5, words) == [
        "One two three. Four five!",
        "Six seven eight nine?",
        "Ten e.g. eleven. Twelve thirteen.",
    ]
    assert cut(text, 4, words)[:2] == ["One two three.", "Four five!"]
    assert cut("你好。再见。", 1, lambda texts: [len(text) // 3 for text in texts]) == ["你好。", "再见。"]
    assert cut(" \n ", 5, words) == []


def test_a_sentence_that_is_too_long_is_halved_at_white_space() -> None:
    assert cut("a b c d e f g. h", 4, words) == ["a b c d", "e f g.", "h"]
    assert cut("abcdefgh", 2, lambda texts: [len(text) for text in texts]) == ["ab", "cd", "ef", "gh"]


@given(
    st.lists(st.lists(st.sampled_from(["a", "bb", "c.", "d!", "e\n", "文。"]), max_size=12), max_size=6),
    st.integers(1, 6),
)
def test_passages_keep_every_word_in_order_within_the_limit(parts: list[list[str]], most: int) -> None:
    text = "\n".join(" ".join(part) for part in parts)
    found = cut(text, most, words)
    assert " ".join(found).split() == text.split()
    assert all(size <= most for size in words(found))


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 documents of 40 sentences with a title."""
    file = tmp_path_factory.mktemp("documents") / "documents.jsonl"
    with file.open("w") as out:
        for number in range(60):
            text = " ".join(f"Sentence {index} of document {number} is here." for index in range(40))
            out.write(json.dumps({"text": text, "title": f"Title {number}" if number else ""}) + "\n")
    return file


def test_documents_become_groups_of_passages_with_neighbours(
    documents: Path, tiny_teacher: Teacher, tmp_path: Path
) -> None:
    options = TextOptions(seq_len=64, passages=True, title="title", validation_fraction=0.3)
    corpus = build_corpus(tmp_path, str(documents), options, tiny_teacher)
    split = corpus.train
    assert int(split.lengths.max()) <= 64
    texts = list(split.texts)
    assert all(text.startswith("Title") or text.endswith("is here.") for text in texts)
    assert not set(split.groups) & set(corpus.validation.groups)
    partners = partners_of(corpus)
    assert (partners != np.arange(len(split))).all()
    first = next(number for number, text in enumerate(texts) if text.startswith("Title"))
    assert texts[partners[first]].startswith("Sentence 0 of document " + texts[first].split()[1])
    plain = build_corpus(tmp_path, str(documents), TextOptions(seq_len=64), tiny_teacher)
    assert len(plain.train) + len(plain.validation) == 60
    with pytest.raises(UsageError, match="no two neighbouring texts"):
        partners_of(plain)


def test_titles_stand_before_their_texts(documents: Path) -> None:
    rows = list(read_rows(str(documents), TextOptions(title="title")))
    assert [row.text[:8] for row in rows[:4]] == ["", "Sentence", "Title 1", "Sentence"]
    assert rows[2].group == rows[3].group != rows[1].group
    assert isinstance(rows[0], TextRow)
    with pytest.raises(UsageError, match=r"no column 'heading'.*--text\.title"):
        list(read_rows(str(documents), TextOptions(title="heading")))
    with pytest.raises(UsageError, match=r"leave out text\.passages"):
        read_rows("builtin:pydocs", TextOptions(passages=True))


def test_corpora_of_earlier_versions_keep_their_keys() -> None:
    assert not {"passages", "title"} & set(TextOptions().deciding)
    assert TextOptions(passages=True).deciding["passages"] is True
