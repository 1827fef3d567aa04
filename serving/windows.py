"""Long texts as overlapping windows that a model can read, with exact offsets in code points."""

import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np

from kdnas.export.encoder import TOKENIZER
from kdnas.export.folder import read_tokenizer
from kdnas.export.session import Session
from kdnas.export.spans import OVERLAP

JOINERS = "\u200d\ufe0e\ufe0f"  # zero-width joiner and variation selectors
MARKS = ("Mn", "Me", "Mc")


class LongTexts:
    """Tokenizes texts with offsets and splits them into windows of `max_seq_len` tokens.

    Neighbouring windows share `overlap` tokens, so that a phrase at a border is whole in one of them.

    Args:
        session: session of the model.
    """

    def __init__(self, session: Session) -> None:
        length = session.max_seq_len
        room = length - len(session.encoder.prefix) - len(session.encoder.suffix)
        self.overlap = max(0, min(OVERLAP, room // 4))
        self.step = room - self.overlap
        self._tokenizer = read_tokenizer(session.path / TOKENIZER, length)
        self._tokenizer.enable_truncation(length, stride=self.overlap)

    def windows(self, texts: Sequence[str]) -> list[list[Any]]:
        """`tokenizers.Encoding`s of the windows of each text, at least one."""
        found = self._tokenizer.encode_batch(list(texts))
        return [[encoding, *encoding.overflowing] for encoding in found]


def bounds(window: Any, text: str) -> tuple[int, int]:
    """First and last (exclusive) code point of a window of a text; (0, 0) if it has no tokens of the text."""
    real = [offset for offset, special in zip(window.offsets, window.special_tokens_mask, strict=True) if not special]
    return whole(text, real[0][0], real[-1][1]) if real else (0, 0)


def whole(text: str, start: int, end: int) -> tuple[int, int]:
    """A span without white space at its ends and without cut characters.

    Normalisation drops combining marks, and byte-level tokenizers cut emoji sequences: the span grows to whole characters with
    their marks, variation selectors and joined emoji.
    """
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    if start == end:
        return start, end
    while start > 0 and (_extends(text[start]) or text[start - 1] == JOINERS[0]):
        start -= 1
    while end < len(text) and (_extends(text[end]) or text[end - 1] == JOINERS[0]):
        end += 1
    return start, end


def _extends(character: str) -> bool:
    """Whether a character belongs to the one before it: marks, joiners, and skin tones of emoji."""
    return character in JOINERS or unicodedata.category(character) in MARKS or "\U0001f3fb" <= character <= "\U0001f3ff"


def merged_tokens(windows: Sequence[Any], outputs: Sequence[np.ndarray], step: int) -> tuple[np.ndarray, ...]:
    """The tokens of a whole text from its windows.

    A token in two windows has the output of the window in which it is farther from the border.

    Args:
        windows: W encodings of consecutive windows.
        outputs: an output (T, C) for each window.
        step: tokens between the starts of neighbouring windows.

    Returns:
        offsets (N, 2), word numbers (N,) with -1 for none, and outputs (N, C), without special tokens.
    """
    last = len(windows) - 1
    offsets: dict[int, tuple[int, int]] = {}
    words: dict[int, int] = {}
    best: dict[int, tuple[int, np.ndarray]] = {}
    for number, (window, output) in enumerate(zip(windows, outputs, strict=True)):
        real = [index for index, special in enumerate(window.special_tokens_mask) if not special]
        for position, index in enumerate(real):
            token = number * step + position
            before = position if number else len(real)
            after = len(real) - 1 - position if number < last else len(real)
            context = min(before, after)
            if token not in best or context > best[token][0]:
                best[token] = context, output[index]
                offsets[token] = window.offsets[index]
                word = window.word_ids[index]
                words[token] = -1 if word is None else word
    order = sorted(best)
    if not order:
        return np.zeros((0, 2), dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros((0, 0), dtype=np.float32)
    return (
        np.asarray([offsets[token] for token in order], dtype=np.int64),
        np.asarray([words[token] for token in order], dtype=np.int64),
        np.stack([best[token][1] for token in order]),
    )
