"""Token ids, words and token types of each family, on real rows in many scripts, equal those of transformers."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from kdnas.evaluation.encoded import Encoded
from kdnas.evaluation.kinds import CLASSES, SCORE, SPANS, WORDS
from kdnas.evaluation.kinds.words import IGNORED
from kdnas.evaluation.rows import Answers, Split
from kdnas.export.folder import read_tokenizer
from kdnas.export.spans import OVERLAP, Windows, text_logits, word_labels
from kdnas.models.family import shape_of
from kdnas.text.joining import read_joining

from ..models.family_fixture import TINY
from ..models.tokenizer_fixture import family_tokenizer

SEQ_LEN, ROWS = 64, 50
# Files of each kind of input, in at least ten languages, with Thai, Chinese and Arabic.
SINGLE = {
    f"sentiment/tweet_sentiment_multilingual/{name}.test": "text"
    for name in ("arabic", "english", "french", "german", "hindi", "spanish")
} | {
    "sentiment/wisesight_sentiment/test": "texts",
    "hap/cold/test": "TEXT",
    "hap/kor_hate/test": "comments",
    "sentiment/afrisenti/amh.test": "tweet",
}
PAIRS = tuple(f"xnli/{code}.validation" for code in ("ar", "bg", "de", "el", "en", "hi", "ru", "sw", "th", "zh"))
WORD_FILES = tuple(
    f"ner/panx/{code}.validation" for code in ("ar", "de", "el", "en", "hi", "ja", "ko", "my", "ru", "zh")
)
QUESTIONS = tuple(
    f"xquad/{code}.validation" for code in ("ar", "de", "el", "en", "es", "hi", "ru", "th", "tr", "vi", "zh")
)


def lines(root: Path, name: str, count: int = ROWS // 10) -> Iterator[dict[str, Any]]:
    with gzip.open(root / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
        for _, line in zip(range(count), file, strict=False):
            yield json.loads(line)


@pytest.fixture(scope="module")
def rows(shared_data: Path) -> dict[str, list[Any]]:
    """At least 50 inputs of each kind."""
    found: dict[str, list[Any]] = {
        "single": [row[column] for name, column in SINGLE.items() for row in lines(shared_data, name)],
        "pair": [(row["premise"], row["hypothesis"]) for name in PAIRS for row in lines(shared_data, name)],
        "words": [row["tokens"] for name in WORD_FILES for row in lines(shared_data, name)],
        "question": [(row["question"], row["context"]) for name in QUESTIONS for row in lines(shared_data, name)],
    }
    # Thai has no row of words; its tweets, split at spaces, do.
    found["words"] += [row["texts"].split() for row in lines(shared_data, "sentiment/wisesight_sentiment/test")]
    found["words"].append(["</s>", " spaced", "", "a-b", "<mask>", "\x07", "ซื้อ", "中文", "😀"])
    assert all(len(inputs) >= ROWS for inputs in found.values())
    return found


@pytest.fixture(scope="module", params=TINY)
def folder(
    request: pytest.FixtureRequest, rows: dict[str, list[Any]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with a tokenizer of the family, trained on the rows."""
    pieces = [part for kind in rows.values() for one in kind for part in ([one] if isinstance(one, str) else one)]
    return family_tokenizer(request.param, pieces, tmp_path_factory.mktemp(request.param))


def stock(folder: Path, **settings: Any) -> Any:
    """The tokenizer of transformers."""
    return AutoTokenizer.from_pretrained(folder, local_files_only=True, **settings)


def word_stock(folder: Path) -> Any:
    """The tokenizer of transformers for lists of words."""
    byte_level = json.loads((folder / "config.json").read_text())["model_type"] == "roberta"
    return stock(folder, **({"add_prefix_space": True} if byte_level else {}))


def assert_same(encoded: Encoded, expected: list[Any], folder: Path) -> None:
    """Check the ids of all rows, and their token types if the model has some."""
    assert [ids.tolist() for ids in encoded.ids] == [one.ids for one in expected]
    if shape_of(json.loads((folder / "config.json").read_text())).types > 1:
        assert [types.tolist() for types in encoded.types] == [one.type_ids for one in expected]
    else:
        assert encoded.types == []


class Recorder:
    """Stands for a model: keeps the ids and token types that it is given, and answers 0."""

    max_seq_len, streams = SEQ_LEN, 1

    def __init__(self, folder: Path) -> None:
        self.tokenizer = read_tokenizer(folder / "tokenizer.json", SEQ_LEN)
        self.ids: list[list[int]] = []
        self.types: list[list[int]] = []

    def require_task(self, *tasks: str) -> None:
        self.task = tasks

    def pad(self, given: Any) -> tuple[np.ndarray, np.ndarray]:
        self.ids += [list(row) for row in given]
        width = max(map(len, given))
        mask = np.asarray([[1] * len(row) + [0] * (width - len(row)) for row in given])
        return np.asarray([[*row, *[0] * (width - len(row))] for row in given]), mask

    def run(self, ids: np.ndarray, mask: np.ndarray, types: np.ndarray | None = None) -> np.ndarray:
        if types is not None:
            self.types += [row[: int(used)].tolist() for row, used in zip(types, mask.sum(1), strict=True)]
        return np.zeros((*ids.shape, 2) if self.task == ("token-classification",) else (len(ids), 2))


def test_single_texts_and_pairs(folder: Path, rows: dict[str, list[Any]]) -> None:
    tokenizer = stock(folder)
    for kind, inputs in ((CLASSES, rows["single"]), (SCORE, rows["pair"]), (CLASSES, rows["question"])):
        texts = list(zip(*inputs, strict=True)) if isinstance(inputs[0], tuple) else [inputs]
        expected = tokenizer(*map(list, texts), truncation=True, max_length=SEQ_LEN, return_token_type_ids=True)
        assert_same(Encoded.of(kind, Split(inputs, [0] * len(inputs)), folder, SEQ_LEN), expected.encodings, folder)
        assert expected["input_ids"] == [one.ids for one in expected.encodings]
        assert expected["token_type_ids"] == [one.type_ids for one in expected.encodings]
        run = Recorder(folder)
        text_logits(run, inputs)
        assert sorted(run.ids) == sorted(expected["input_ids"])
        if len(texts) == 2:
            assert sorted(run.types) == sorted(expected["token_type_ids"])


def test_words(folder: Path, rows: dict[str, list[Any]]) -> None:
    inputs = rows["words"]
    tokenizer = word_stock(folder)
    expected = tokenizer(inputs, is_split_into_words=True, truncation=True, max_length=SEQ_LEN)
    encodings = WORDS.encodings(inputs, read_tokenizer(folder / "tokenizer.json", SEQ_LEN))
    assert [one.word_ids for one in encodings] == [expected.word_ids(row) for row in range(len(inputs))]
    encoded = Encoded.of(WORDS, Split(inputs, [[*range(len(words))] for words in inputs]), folder, SEQ_LEN)
    assert_same(encoded, expected.encodings, folder)
    for row, targets in enumerate(encoded.targets):
        of_words = [word for word in targets.tolist() if word != IGNORED]
        assert of_words == sorted({word for word in expected.word_ids(row) if word is not None})
    run = Recorder(folder)
    word_labels(run, inputs)
    assert sorted(run.ids) == sorted(expected["input_ids"])


def test_every_word_keeps_its_mark(folder: Path) -> None:
    """The ids of words equal those of the sentence that they form: a word in a list has a space before it."""
    (one,) = WORDS.encodings([["Berlin", "is", "in", "Germany"]], read_tokenizer(folder / "tokenizer.json", SEQ_LEN))
    sentence = word_stock(folder)("Berlin is in Germany")
    assert one.ids == sentence["input_ids"]


def test_windows_of_questions_and_contexts(folder: Path, rows: dict[str, list[Any]]) -> None:
    length = 384
    tokenizer, windows = stock(folder), Windows(read_tokenizer(folder / "tokenizer.json", length), length)
    answers = [Answers((context[:5],), 0) for _, context in rows["question"]]
    encoded = Encoded.of(SPANS, Split(rows["question"], answers), folder, length)
    limits = {"truncation": "only_second", "max_length": length, "stride": OVERLAP, "return_overflowing_tokens": True}
    expected = [one for pair in rows["question"] for one in tokenizer(*pair, **limits).encodings]
    assert len(expected) > len(rows["question"])
    assert_same(encoded, expected, folder)
    ours = [one for pair in rows["question"] for one in windows.of(*pair)]
    for name in ("ids", "type_ids", "sequence_ids", "offsets"):
        assert [getattr(one, name) for one in ours] == [getattr(one, name) for one in expected]


def test_joined_pairs(folder: Path, rows: dict[str, list[Any]]) -> None:
    tokenizer, joining = stock(folder), read_joining(folder)
    for pair in rows["pair"]:
        first, second = (np.asarray(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in pair)
        ids, types = joining.pair(first, second)
        expected = tokenizer(*pair, return_token_type_ids=True)
        assert (ids.tolist(), types.tolist()) == (expected["input_ids"], expected["token_type_ids"])
