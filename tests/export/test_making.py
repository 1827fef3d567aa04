"""Selection of the calibration sentences and of the sentences for comparison."""

import tracemalloc
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from kdnas.export.making import balanced_choice, calibration_rows, parity_rows
from kdnas.export.options import ExportOptions

MILLIONS = 3_000_000

NAMES = ("en", "de", "sw")


class Texts(list[str]):
    """A list with the interface of `kdnas.text.column.Column`."""

    def at(self, indices: np.ndarray) -> list[str]:
        return [self[index] for index in indices.tolist()]


@dataclass
class Some:
    """Sentences of one word, and their languages."""

    texts: Texts
    languages: list[str]

    @property
    def language_numbers(self) -> np.ndarray:
        return np.array([sorted(set(self.languages)).index(name) for name in self.languages])

    def __len__(self) -> int:
        return len(self.texts)


class Numbered:
    """Millions of texts that exist only when they are read; reading them one after the other is an error."""

    def __len__(self) -> int:
        return MILLIONS

    def __getitem__(self, rows: slice) -> list[str]:
        assert rows.stop <= 512
        return [f"text {index}" for index in range(rows.stop)]

    def at(self, indices: np.ndarray) -> list[str]:
        return [f"text {index}" for index in indices.tolist()]


@dataclass
class Many:
    """As `kdnas.text.sentences.Sentences`, with millions of sentences."""

    language_numbers: np.ndarray
    lengths: np.ndarray
    texts: Numbered

    def __len__(self) -> int:
        return MILLIONS


def of_languages(counts: dict[str, int], sentences: int, seed: int = 0) -> list[str]:
    """Languages of the calibration sentences from a corpus with `counts` sentences of each language."""
    words = [(f"{name}{number}", name) for name, count in counts.items() for number in range(count)]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, (word, _) in enumerate(words)}, unk_token="en0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    some = Some(Texts(word for word, _ in words), [name for _, name in words])
    rows = calibration_rows(some, tokenizer, ExportOptions(calibration_sentences=sentences, seed=seed))  # type: ignore[arg-type]
    assert len(set(map(tuple, rows))) == len(rows)
    return [words[row[0]][1] for row in rows]


def test_calibration_balances_the_languages() -> None:
    assert Counter(of_languages({"en": 900, "de": 90, "sw": 4}, 60)) == {"en": 28, "de": 28, "sw": 4}


def test_calibration_includes_every_language() -> None:
    counts = {f"l{number}": 3 for number in range(40)} | {"en": 500}
    assert set(of_languages(counts, 20)) == set(counts)


def test_calibration_of_a_corpus_without_languages() -> None:
    assert of_languages({"": 500}, 50) == [""] * 50
    assert of_languages({"": 30}, 50) == [""] * 30


def choice_by_lists(groups: list[int], count: int, seed: int) -> list[int]:
    """The same choice in plain Python, with one tuple per row."""
    taken: Counter[int] = Counter()
    turns = []
    for index in np.random.default_rng(seed).permutation(len(groups)).tolist():
        turns.append((taken[groups[index]], len(turns), index))
        taken[groups[index]] += 1
    return [index for _, _, index in sorted(turns)[: max(count, len(taken))]]


@given(st.lists(st.integers(0, 6), min_size=1, max_size=200), st.integers(1, 250), st.integers(0, 9))
def test_the_choice_equals_that_in_plain_python(groups: list[int], count: int, seed: int) -> None:
    assert balanced_choice(np.array(groups, dtype=np.int32), count, seed).tolist() == choice_by_lists(
        groups, count, seed
    )


def test_sentences_are_drawn_from_millions_with_bounded_memory() -> None:
    rng = np.random.default_rng(0)
    languages = np.minimum(rng.geometric(0.4, MILLIONS), 12).astype(np.int32)
    some: Any = Many(languages, rng.integers(3, 128, MILLIONS), Numbered())
    tokenizer = Tokenizer(models.WordLevel({"text": 0, "?": 1}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    for draw in (
        lambda: calibration_rows(some, tokenizer, ExportOptions(calibration_sentences=128)),
        lambda: parity_rows(some, tokenizer, 100, 128),
    ):
        tracemalloc.start()
        rows = draw()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(rows) in (128, 102)
        assert peak < 45 * MILLIONS  # bytes; 315 MB with 7 million sentences
