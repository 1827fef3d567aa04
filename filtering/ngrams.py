"""Hashed n-grams of characters and words, of many texts at once; whole-number arithmetic, so that all hosts agree."""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

BITS = 18  # an n-gram falls into one of 2**BITS buckets
LONGEST = 5  # characters in an n-gram: 2 to this number, with the start and the end of the text as one each
FEATURES = f"1: {2**BITS} buckets, 2 to {LONGEST} characters, 1 to 2 words"  # change it with the code that makes them
BLOCK_CHARACTERS = 2**16  # characters that are worked on at once: the arrays fit into a core's cache
WORD_CHARACTERS = 64  # word hashes repeat their factors after so many characters
_PLANE = 2**16
_MULTIPLIER, _MIX, _SEED = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93), 0x632BE59BD9B4E019


@dataclass(frozen=True)
class Grams:
    """The n-grams of one kind in N texts.

    Args:
        buckets: (F,) int64 bucket of each n-gram, in the order of the texts. Those that reach into the next text are there, too.
        starts: (N,) first n-gram of each text.
        ends: (N,) end of each text's n-grams.
    """

    buckets: np.ndarray
    starts: np.ndarray
    ends: np.ndarray


def blocks(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Start and end of groups of neighbouring texts with about `BLOCK_CHARACTERS` characters."""
    first = size = 0
    for index, text in enumerate(texts):
        size += len(text)
        if size >= BLOCK_CHARACTERS:
            yield first, index + 1
            first, size = index + 1, 0
    if first < len(texts):
        yield first, len(texts)


def grams(texts: Sequence[str]) -> Iterator[Grams]:
    """The n-grams of lower-case texts: of 2 to 5 characters, of one word, and of two neighbouring words.

    Args:
        texts: N texts, N at least 1.
    """
    lower = [text.lower() for text in texts]
    lengths = np.fromiter(map(len, lower), np.int64, len(lower))
    joined = ("\n" + "\n".join(lower) + "\n").encode("utf-32-le", "surrogatepass")
    codes = np.frombuffer(joined, "<u4").astype(np.uint64)
    edges = np.concatenate([[0], np.cumsum(lengths + 1)])  # the mark before each text, and the last one
    hashes = codes
    for count in range(2, LONGEST + 1):
        hashes = hashes[:-1] * _MULTIPLIER + codes[count - 1 :]
        starts = np.minimum(edges[:-1], len(hashes))
        yield Grams(_buckets(hashes, count), starts, starts + np.maximum(0, lengths + 3 - count))
    yield from _word_grams(codes, edges)


def _word_grams(codes: np.ndarray, edges: np.ndarray) -> Iterator[Grams]:
    index = np.flatnonzero(_is_word()[np.minimum(codes, _PLANE - 1).astype(np.int64)])
    first = np.flatnonzero(np.diff(index, prepend=-2) > 1)  # where words start
    hashes = np.zeros(0, np.uint64)
    if len(first):
        within = np.arange(len(index)) - np.repeat(first, np.diff(first, append=len(index)))
        hashes = np.add.reduceat(codes[index] * _factors()[within % WORD_CHARACTERS], first)
    bounds = np.searchsorted(index[first], edges)
    starts, ends = bounds[:-1], bounds[1:]
    yield Grams(_buckets(hashes, LONGEST + 1), starts, ends)
    pairs = hashes[:-1] * _MULTIPLIER + hashes[1:]
    starts = np.minimum(starts, len(pairs))
    yield Grams(_buckets(pairs, LONGEST + 2), starts, np.maximum(starts, ends - 1))


def _buckets(hashes: np.ndarray, kind: int) -> np.ndarray:
    mixed = (hashes + np.uint64(kind * _SEED % 2**64)) * _MIX
    mixed ^= mixed >> np.uint64(32)
    mixed *= _MIX
    mixed >>= np.uint64(64 - BITS)
    return mixed.view(np.int64)


@cache
def _is_word() -> np.ndarray:
    """(65536,) whether a code point is part of a word: letters, marks, digits; the last entry also stands for all higher ones."""
    table = np.array([unicodedata.category(chr(code))[0] in "LMN" for code in range(_PLANE)])
    table[-1] = True
    return table


@cache
def _factors() -> np.ndarray:
    return np.cumprod(np.full(WORD_CHARACTERS, _MULTIPLIER, np.uint64))
