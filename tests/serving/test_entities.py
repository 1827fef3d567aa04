"""Spans from token labels, and exact offsets in scripts with marks, joined characters or no spaces."""

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from kdnas.models.teacher import Teacher
from kdnas.serving.entities import entities_of
from kdnas.serving.tasks import TextOutput, Window, estimated_tokens, scores_of, text_scores, text_vector
from kdnas.serving.windows import merged_tokens, whole

LABELS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]


def spans(text: str, tagged: list[tuple[str, str]], labels: list[str] = LABELS) -> list[tuple[str, str]]:
    """Entities of a text whose words have these labels."""
    offsets, numbers, chances = [], [], []
    end = 0
    for number, (word, label) in enumerate(tagged):
        start = text.index(word, end)
        end = start + len(word)
        offsets.append((start, end))
        numbers.append(number)
        row = np.full(len(labels), 0.1 / len(labels))
        row[labels.index(label)] += 0.9
        chances.append(row)
    found = entities_of(text, np.asarray(offsets), np.asarray(numbers), np.asarray(chances), labels)
    return [(text[one.start : one.end], one.label) for one in found]


@pytest.mark.parametrize(
    ("tagged", "expected"),
    [
        (
            [("Ada", "B-PER"), ("Lovelace", "I-PER"), ("in", "O"), ("London", "B-LOC")],
            [("Ada Lovelace", "PER"), ("London", "LOC")],
        ),
        (
            [("Ada", "B-PER"), ("Lovelace", "B-PER"), ("in", "O"), ("London", "O")],
            [("Ada", "PER"), ("Lovelace", "PER")],
        ),
        (
            [("Ada", "I-PER"), ("Lovelace", "I-PER"), ("in", "I-LOC"), ("London", "I-LOC")],
            [("Ada Lovelace", "PER"), ("in London", "LOC")],
        ),
        (
            [("Ada", "O"), ("Lovelace", "I-PER"), ("in", "O"), ("London", "I-PER")],
            [("Lovelace", "PER"), ("London", "PER")],
        ),
    ],
)
def test_bio_labels_become_spans(tagged: list[tuple[str, str]], expected: list[tuple[str, str]]) -> None:
    assert spans("Ada Lovelace in London", tagged) == expected


def test_iobes_and_plain_labels_become_spans() -> None:
    iobes = ["O", "B-PER", "E-PER", "S-LOC"]
    tagged = [("Ada", "B-PER"), ("Lovelace", "E-PER"), ("London", "S-LOC"), ("Paris", "S-LOC")]
    assert spans("Ada Lovelace London Paris", tagged, iobes) == [
        ("Ada Lovelace", "PER"), ("London", "LOC"), ("Paris", "LOC"),
    ]  # fmt: skip
    assert spans("Ada Lovelace", [("Ada", "PER"), ("Lovelace", "PER")], ["O", "PER"]) == [("Ada Lovelace", "PER")]


def test_a_word_has_the_label_of_its_first_token_but_thai_tokens_count_alone() -> None:
    offsets, chances = np.asarray([(0, 3), (3, 6)]), np.asarray([[0.1, 0.9, 0, 0, 0], [0.9, 0.1, 0, 0, 0]])
    one = entities_of("London", offsets, np.asarray([0, 0]), chances, LABELS)
    assert [(found.start, found.end, found.score) for found in one] == [(0, 6, pytest.approx(0.9))]
    thai = entities_of("ลอนดอ", offsets, np.asarray([0, 0]), chances, LABELS)
    assert [(found.start, found.end) for found in thai] == [(0, 3)]


@pytest.mark.parametrize(
    ("text", "inner", "expected"),
    [
        ("see e\u0301a", (4, 5), "e\u0301"),  # e and a combining acute accent
        ("ผู้หญิง", (0, 1), "ผู้"),  # Thai vowel and tone mark
        ("مُحَمَّد هنا", (0, 7), "مُحَمَّ"),  # Arabic vowel signs, of which the last one was dropped
        ("a 👩‍👩‍👧 b", (2, 3), "👩‍👩‍👧"),  # one family of three emoji and two joiners
        ("👍🏽!", (0, 1), "👍🏽"),  # skin tone
        ("  Ada  ", (0, 7), "Ada"),
        ("✈️ now", (0, 1), "✈️"),  # variation selector
        ("   ", (0, 3), ""),
    ],
)
def test_spans_are_whole_characters(text: str, inner: tuple[int, int], expected: str) -> None:
    start, end = whole(text, *inner)
    assert text[start:end] == expected


TEXTS = [
    "Ada 👩‍👩‍👧 lives in Zu\u0308rich 👍🏽.",
    "محمد يعيش في القاهرة",
    "สมชายอยู่ที่กรุงเทพ",
    "東京に住む山田さん",
    "naïve café \U0001f1eb\U0001f1f7 A\u030angstro\u0308m",
]


@pytest.mark.parametrize("kind", ["wordpiece", "metaspace", "bytes"])
@pytest.mark.parametrize("text", TEXTS)
def test_offsets_are_code_points_for_every_kind_of_tokenizer(teacher: Teacher, kind: str, text: str) -> None:
    """Tokens that lie inside a marked phrase give exactly this phrase."""
    encoding = tokenizer_of(kind, teacher.path).encode(text)
    for first in range(0, len(text) - 1, 3):
        inside = [index for index, (start, end) in enumerate(encoding.offsets) if start < end and start >= first]
        if not inside:
            continue
        start, end = whole(text, encoding.offsets[inside[0]][0], encoding.offsets[inside[-1]][1])
        assert 0 <= start <= end <= len(text)
        assert (start, end) == whole(text, start, end)  # nothing is cut
    real = [offset for offset in encoding.offsets if offset[0] < offset[1]]
    covered = {index for start, end in real for index in range(*whole(text, start, end))}
    missing = {text[index] for index in range(len(text)) if index not in covered and not text[index].isspace()}
    assert not missing


def tokenizer_of(kind: str, teacher: Path) -> Tokenizer:
    if kind == "wordpiece":
        return Tokenizer.from_file(str(teacher / "tokenizer.json"))
    tokenizer = Tokenizer(models.BPE() if kind == "bytes" else models.Unigram())
    if kind == "bytes":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
        trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    else:
        tokenizer.normalizer = normalizers.NFKC()
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(vocab_size=120, unk_token="<unk>", special_tokens=["<unk>"])
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


@pytest.mark.parametrize("tokens", [1, 9, 10, 11, 25, 40])
def test_windows_merge_to_the_tokens_of_the_whole_text(teacher: Teacher, tokens: int) -> None:
    tokenizer = Tokenizer.from_file(str(teacher.path / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    text = " ".join(["word", "Zu\u0308rich", "of"][number % 3] for number in range(tokens))
    full = tokenizer.encode(text)
    tokenizer.enable_truncation(12, stride=3)
    first = tokenizer.encode(text)
    windows = [first, *first.overflowing]
    outputs = [
        np.asarray([[index, position] for position, index in enumerate(one.ids)], dtype=np.float32) for one in windows
    ]
    offsets, words, merged = merged_tokens(windows, outputs, 12 - 2 - 3)
    real = [index for index, special in enumerate(full.special_tokens_mask) if not special]
    assert offsets.tolist() == [list(full.offsets[index]) for index in real]
    assert words.tolist() == [full.word_ids[index] for index in real]
    assert merged[:, 0].tolist() == [full.ids[index] for index in real]
    inner = merged[3:-3, 1]
    assert ((inner >= 2) & (inner <= 9)).all()  # tokens in two windows come from the one with more context


def test_scores_of_multi_label_regression_and_classes() -> None:
    logits = np.asarray([0.0, 2.0], dtype=np.float32)
    assert scores_of(logits, "multi_label_classification") == pytest.approx([0.5, 0.8808], abs=1e-4)
    assert scores_of(logits, "single_label_classification") == pytest.approx([0.1192, 0.8808], abs=1e-4)
    assert scores_of(logits[1:], "regression") == pytest.approx([2.0])


def test_windows_are_weighted_by_their_tokens() -> None:
    parts = [Window(0, 9, np.asarray([3.0, 0.0]), 30), Window(5, 12, np.asarray([0.0, 3.0]), 10)]
    output = TextOutput(parts, 40)
    high, low = scores_of(parts[0].outputs, "single_label_classification")
    assert text_scores(output, "single_label_classification")[0] == pytest.approx(
        [(3 * high + low) / 4, (3 * low + high) / 4]
    )
    assert text_scores(output, "single_label_classification", 1)[0] == pytest.approx([low, high])
    assert text_vector(output) == pytest.approx(np.asarray([3, 1]) / np.sqrt(10))


def test_estimates_count_bytes() -> None:
    assert estimated_tokens("a" * 40) == 13
    assert estimated_tokens("東京") > estimated_tokens("ab")
