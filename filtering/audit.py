"""Random choices by a hash of document and sentence, and the counts that bound what the gate missed.

The counts of a language are [passed, audited, missed, found]: sentences that passed the gate; those of them that the model scored
all the same; positive ones among these; and positive ones among the sentences that did not pass.
"""

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np

from kdnas.filtering.bounds import missed_bounds
from kdnas.filtering.reading import Document

NO_COUNTS = (0, 0, 0, 0)
_STEP, _MIX_1, _MIX_2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def document_keys(purpose: str, seed: int, documents: Iterable[Document]) -> np.ndarray:
    """(D,) uint64 hash of each document's text, file name and position, the same wherever the corpus is stored."""
    names = (f"{purpose}:{seed}:{one.file.rpartition('/')[2]}:{one.position}:{one.text}" for one in documents)
    hashes = (blake2b(name.encode(errors="surrogatepass"), digest_size=8).digest() for name in names)
    return np.array([int.from_bytes(one) for one in hashes], np.uint64)


def uniforms(keys: np.ndarray) -> np.ndarray:
    """Numbers in [0, 1) from hashes."""
    return keys / 2.0**64


def sentence_uniforms(keys: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """A number in [0, 1) for each sentence, from the hash of its document and its index there (SplitMix64).

    Args:
        keys: (D,) uint64 hash of each document.
        counts: number of sentences of each document.

    Returns:
        (S,) numbers, S the sum of the counts.
    """
    sizes = np.asarray(counts, np.int64)
    index = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    mixed = np.repeat(keys, sizes) + (index + 1).astype(np.uint64) * _STEP
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _MIX_1
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _MIX_2
    return (mixed ^ (mixed >> np.uint64(31))) / 2.0**64


def count_gate(
    languages: Sequence[str], counts: Sequence[int], passed: np.ndarray, audited: np.ndarray, positive: np.ndarray
) -> dict[str, list[int]]:
    """The counts of documents by language.

    Args:
        languages: language of each of D documents.
        counts: number of sentences of each document.
        passed: (S,) whether the sentence passed the gate.
        audited: (S,) whether it passed and was scored all the same.
        positive: (S,) whether the model found it positive.
    """
    flags = np.stack([passed, audited, audited & positive, ~passed & positive])
    sums = np.concatenate([np.zeros((4, 1), np.int64), np.cumsum(flags, axis=1, dtype=np.int64)], axis=1)
    edges = np.cumsum([0, *counts])
    found: dict[str, list[int]] = {}
    for language, row in zip(languages, (sums[:, edges[1:]] - sums[:, edges[:-1]]).T.tolist(), strict=True):
        found[language] = added_counts(found.get(language, NO_COUNTS), row)
    return found


def added_counts(*parts: Iterable[int]) -> list[int]:
    """The sum of counts."""
    return [sum(column) for column in zip(*parts, strict=True)]


def bounds_of(counts: Sequence[int], confidence: float) -> dict[str, Any]:
    """Counts by name, and the bounds of the fraction of positive sentences that the gate let pass."""
    passed, audited, missed, found = counts
    lower, upper = missed_bounds(passed, audited, missed, found, confidence)
    names = ("passed", "audited", "missed", "found")
    return dict(zip(names, counts, strict=True)) | {
        "missed_at_least": round(lower, 6),
        "missed_at_most": round(upper, 6),
    }


def is_beyond(gate: dict[str, list[int]], miss: float, confidence: float) -> bool:
    """Whether the audit of a unit shows, with this confidence, that more than the fraction `miss` was missed."""
    passed, audited, missed, found = added_counts(NO_COUNTS, *gate.values())
    return missed_bounds(passed, audited, missed, found, confidence)[0] > miss
