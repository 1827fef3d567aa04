"""Selection of the calibration sentences."""

from collections import Counter
from dataclasses import dataclass

from tokenizers import Tokenizer, models, pre_tokenizers

from kdnas.export.making import calibration_rows
from kdnas.export.options import ExportOptions

NAMES = ("en", "de", "sw")


@dataclass
class Some:
    """Sentences of one word, and their languages."""

    texts: list[str]
    languages: list[str]

    def __len__(self) -> int:
        return len(self.texts)


def of_languages(counts: dict[str, int], sentences: int, seed: int = 0) -> list[str]:
    """Languages of the calibration sentences from a corpus with `counts` sentences of each language."""
    words = [(f"{name}{number}", name) for name, count in counts.items() for number in range(count)]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, (word, _) in enumerate(words)}, unk_token="en0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    some = Some([word for word, _ in words], [name for _, name in words])
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
