"""Entities from the labels of tokens: BIO, IOBES or plain labels merged to spans of characters."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kdnas.serving.windows import whole

OUTSIDE = "O"
# Scripts without spaces between words: each token counts as a word.
UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")


@dataclass(frozen=True)
class Entity:
    """A span of a text.

    Args:
        start: first code point.
        end: the code point after the last.
        label: type, such as `PER`.
        score: mean probability of the label over the entity's words.
    """

    start: int
    end: int
    label: str
    score: float


@dataclass(frozen=True)
class Word:
    """A word with the label of its first token."""

    start: int
    end: int
    label: str
    score: float


def entities_of(
    text: str, offsets: np.ndarray, words: np.ndarray, probabilities: np.ndarray, labels: Sequence[str]
) -> list[Entity]:
    """The entities of a text, in its order.

    A word has the label of its first token, as models are trained (see `kdnas.export.spans.word_labels`).

    Args:
        text: the text.
        offsets: start and end (N, 2) of its tokens.
        words: word number (N,) of each token.
        probabilities: probabilities (N, C) of the labels.
        labels: names of the labels, such as `O`, `B-PER`, `I-PER`.
    """
    found: list[list[Word]] = []
    previous = OUTSIDE
    for word in _words(text, offsets, words, probabilities, labels):
        prefix, kind = split_label(word.label)
        if kind == OUTSIDE:
            previous = OUTSIDE
            continue
        if prefix in ("B", "S") or kind != previous:
            found.append([])
        found[-1].append(word)
        previous = OUTSIDE if prefix in ("E", "S") else kind
    result = []
    for group in found:
        start, end = whole(text, group[0].start, group[-1].end)
        if start < end:
            kind = split_label(group[0].label)[1]
            result.append(Entity(start, end, kind, float(np.mean([word.score for word in group]))))
    return result


def split_label(label: str) -> tuple[str, str]:
    """Prefix and type of a label: `("B", "PER")` for `B-PER`, `("", "PER")` for `PER`, `("", "O")` for `O`."""
    return (label[0], label[2:]) if label[:1] in tuple("BIES") and label[1:2] == "-" else ("", label)


def _words(
    text: str, offsets: np.ndarray, words: np.ndarray, probabilities: np.ndarray, labels: Sequence[str]
) -> list[Word]:
    found: list[Word] = []
    latest = -1
    for (start, end), number, chances in zip(offsets.tolist(), words.tolist(), probabilities, strict=True):
        if start == end:
            continue
        same = found and number >= 0 and number == latest and start <= found[-1].end
        if same and not _unspaced(text[start]):
            before = found[-1]
            found[-1] = Word(before.start, max(end, before.end), before.label, before.score)
            continue
        best = int(chances.argmax())
        found.append(Word(start, end, labels[best], float(chances[best])))
        latest = number
    return found


def _unspaced(character: str) -> bool:
    return unicodedata.name(character, "").startswith(UNSPACED)
