"""One split of a built corpus: memory-mapped token ids, and the batches of an epoch over them."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from kdnas.text.padding import pad, padded_length


@dataclass(frozen=True)
class Sentences:
    """One split: texts, topics and token ids (special tokens included) of N sentences."""

    path: Path
    split: str

    def __reduce__(self) -> tuple[type["Sentences"], tuple[Path, str]]:
        """A copy in another process maps the files itself."""
        return Sentences, (self.path, self.split)

    @cached_property
    def _table(self) -> Any:
        import pyarrow.parquet as pq

        return pq.read_table(self.path / f"{self.split}.parquet", memory_map=True)

    @cached_property
    def texts(self) -> list[str]:
        return list(self._table["text"].to_pylist())

    @cached_property
    def topics(self) -> list[str]:
        """Class label of each sentence, empty where the corpus has none."""
        return list(self._table["topic"].to_pylist())

    @cached_property
    def languages(self) -> list[str]:
        """Language of each sentence, empty where the corpus does not say it."""
        known = "language" in self._table.column_names  # corpora of earlier versions have no such column
        return list(self._table["language"].to_pylist()) if known else [""] * len(self)

    @cached_property
    def language_numbers(self) -> np.ndarray:
        """Number of each sentence's language, (N,) int32, in the order of their first sentences."""
        if "language" not in self._table.column_names:
            return np.zeros(len(self), dtype=np.int32)
        return np.asarray(self._table["language"].combine_chunks().dictionary_encode().indices, dtype=np.int32)

    @cached_property
    def tokens(self) -> np.ndarray:
        """All token ids in a row, int32."""
        return np.load(self.path / f"{self.split}.tokens.npy", mmap_mode="r")

    @cached_property
    def offsets(self) -> np.ndarray:
        """Where each sentence starts in `tokens`, and the end of the last: (N + 1,) int64."""
        return np.load(self.path / f"{self.split}.offsets.npy")

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each sentence, (N,)."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]

    def batch(self, indices: np.ndarray, pad_id: int) -> tuple[np.ndarray, np.ndarray]:
        """Padded ids and mask of some sentences, both (B, T) int64."""
        return pad([self[int(index)] for index in indices], pad_id)


def balanced(groups: np.ndarray, power: float, rng: np.random.Generator) -> np.ndarray:
    """Numbers of sentences, (N,), drawn so that a group of n has a share that is proportional to n^power.

    A group that gets more than it has is taken whole as often as that goes, and a random part of it once more.

    Args:
        groups: (N,) number of each sentence's group, as its language.
        power: 1 leaves the shares as they are, 0 makes them equal; 0.3 in XLM-R (arXiv 1911.02116, Section 3).
        rng: draws.
    """
    order = np.argsort(groups, kind="stable")
    counts = np.bincount(groups)
    fractions = np.where(counts > 0, counts.astype(float) ** power, 0.0)
    edges = np.round(np.cumsum(fractions / fractions.sum()) * len(groups)).astype(int)
    chosen, start, before = [], 0, 0
    for count, edge in zip(counts, edges, strict=True):
        if count:
            members, wanted = order[start : start + count], int(edge) - before
            chosen += [np.tile(members, wanted // count), rng.permutation(members)[: wanted % count]]
        start, before = start + int(count), int(edge)
    return np.concatenate(chosen)


def token_batches(lengths: np.ndarray, batch_tokens: int, seed: int, epoch: int, pool: int = 64) -> list[np.ndarray]:
    """Batches of one epoch, each of at most `batch_tokens` padded tokens and of similar lengths.

    The order depends on `seed` and `epoch` alone: shuffle, sort by length within pools of about `pool` batches, cut by
    budget, shuffle the batches. Every sentence is in exactly one batch.

    Args:
        lengths: (N,) tokens of each sentence.

    Returns:
        Index arrays into the split, each (B,) int64.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths))
    pool_size = max(1, int(pool * batch_tokens / max(1.0, float(lengths.mean())))) if len(lengths) else 1
    batches: list[np.ndarray] = []
    for start in range(0, len(order), pool_size):
        chunk = order[start : start + pool_size]
        chunk = chunk[np.argsort(lengths[chunk], kind="stable")]
        first = 0
        for index in range(1, len(chunk) + 1):
            # Sorted, so the newest is the longest.
            if index == len(chunk) or (index + 1 - first) * padded_length(int(lengths[chunk[index]])) > batch_tokens:
                batches.append(chunk[first:index])
                first = index
    return [batches[index] for index in rng.permutation(len(batches))]
