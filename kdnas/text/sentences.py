"""One split of a built corpus: memory-mapped token ids, and the batches of an epoch over them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from kdnas.text.column import Column
from kdnas.text.padding import pad, padded_length

# Maximum draws of a sentence in an epoch. Up to four passes are nearly worth as much as new text (arXiv 2305.16264).
MOST_REPEATS = 4


@dataclass(frozen=True)
class Sentences:
    """One split: texts, topics and token ids (with special tokens) of N sentences."""

    path: Path
    split: str

    def __reduce__(self) -> tuple[type["Sentences"], tuple[Path, str]]:
        """Pickle only the path; a copy in another process maps the files itself."""
        return Sentences, (self.path, self.split)

    @property
    def _parquet(self) -> Path:
        return self.path / f"{self.split}.parquet"

    @cached_property
    def _knows_languages(self) -> bool:
        import pyarrow.parquet as pq

        return "language" in pq.read_schema(self._parquet).names  # corpora of earlier versions have no such column

    @cached_property
    def texts(self) -> Column:
        """Text of each sentence, read from the file when it is accessed."""
        return Column(self._parquet, "text")

    @cached_property
    def topics(self) -> Column:
        """Class label of each sentence, empty if the corpus has none."""
        return Column(self._parquet, "topic")

    @cached_property
    def groups(self) -> Column:
        """Group of each sentence; no group is in both splits."""
        return Column(self._parquet, "group")

    @cached_property
    def languages(self) -> Sequence[str]:
        """Language of each sentence, empty if the corpus does not state it."""
        return Column(self._parquet, "language") if self._knows_languages else [""] * len(self)

    @cached_property
    def language_numbers(self) -> np.ndarray:
        """Number of each sentence's language, (N,) int32; languages are numbered in the order of their first sentences."""
        known = self._knows_languages
        return Column(self._parquet, "language").numbers() if known else np.zeros(len(self), dtype=np.int32)

    @property
    def language_counts(self) -> dict[str, int]:
        """Number of sentences of each language, in the order of `language_numbers`; "" counts those without one."""
        _, first, counts = np.unique(self.language_numbers, return_index=True, return_counts=True)
        return dict(zip(self.languages_at(first), counts.tolist(), strict=True))

    def languages_at(self, indices: np.ndarray) -> list[str]:
        """Languages of the sentences at these indices."""
        return self.languages.at(indices) if isinstance(self.languages, Column) else [""] * len(indices)

    @cached_property
    def tokens(self) -> np.ndarray:
        """Token ids of all sentences, concatenated, int32."""
        return np.load(self.path / f"{self.split}.tokens.npy", mmap_mode="r")

    @cached_property
    def offsets(self) -> np.ndarray:
        """Start of each sentence in `tokens`, and the end of the last one: (N + 1,) int64."""
        return np.load(self.path / f"{self.split}.offsets.npy")

    @property
    def lengths(self) -> np.ndarray:
        """Number of tokens in each sentence, (N,)."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]

    def batch(self, indices: np.ndarray, pad_id: int) -> tuple[np.ndarray, np.ndarray]:
        """Padded ids and mask of the sentences at these indices, both (B, T) int64."""
        return pad([self[int(index)] for index in indices], pad_id)


def draws_of(counts: np.ndarray, power: float, total: int, most: int = MOST_REPEATS) -> np.ndarray:
    """Number of draws from each group, (G,): proportional to n^power for n members, but at least 1 and at most `most` n.

    What a group at its limit does not get is divided among the others in the same proportions.

    Args:
        counts: (G,) members of each group; a group without members gets no draws.
        power: 1 keeps the fractions, 0 makes them equal; XLM-R uses 0.3 (arXiv 1911.02116, Section 3).
        total: sum of the draws, from the number of groups with members to `most` times all members.
        most: maximum draws per member.
    """
    limits, weights = most * counts, np.where(counts > 0, counts.astype(float) ** power, 0.0)
    free = counts > 0
    while True:
        wanted = np.where(free, (total - limits[~free].sum()) * weights / max(weights[free].sum(), 1e-300), limits)
        over = free & (wanted > limits * (1 + 1e-9))
        if not over.any():
            break
        free &= ~over
    edges = np.round(np.cumsum(wanted)).astype(int)
    draws = np.clip(np.diff(edges, prepend=0), (counts > 0).astype(int), limits)
    while difference := total - int(draws.sum()):
        step = 1 if difference > 0 else -1
        allowed = draws < limits if step > 0 else draws > 1
        draws[np.argmax(np.where(allowed, step * (wanted - draws), -np.inf))] += step
    return draws


def balanced(groups: np.ndarray, power: float, rng: np.random.Generator) -> np.ndarray:
    """Indices of sentences, (N,), drawn so that the fraction of a group of n sentences is proportional to n^power.

    A group that gets more draws than it has sentences is repeated whole as often as possible; the rest is a random part of it.

    Args:
        groups: (N,) number of each sentence's group, for example its language.
        power: as in `draws_of`, which limits the repetitions.
        rng: source of random numbers.
    """
    order = np.argsort(groups, kind="stable")
    counts = np.bincount(groups)
    chosen, start = [], 0
    for count, wanted in zip(counts.tolist(), draws_of(counts, power, len(groups)).tolist(), strict=True):
        if count:
            members = order[start : start + count]
            chosen += [np.tile(members, wanted // count), rng.permutation(members)[: wanted % count]]
        start += count
    return np.concatenate(chosen)


def balanced_order(groups: np.ndarray, power: float, rng: np.random.Generator) -> np.ndarray:
    """Random order of all sentences, (N,), in whose beginning a group of n sentences has a fraction proportional to n^power.

    No sentence occurs twice, so the beginning has all sentences of a group that is too small for its fraction. With a
    single group every order is equally likely.

    Args:
        groups: (N,) number of each sentence's group, for example its language.
        power: 1 keeps the fractions, 0 makes them equal.
        rng: source of random numbers.
    """
    order = rng.permutation(len(groups))
    grouped = order[np.argsort(groups[order], kind="stable")]
    counts = np.bincount(groups)
    ranks = np.empty(len(groups))  # of each sentence among those of its group
    ranks[grouped] = np.arange(len(groups)) - np.repeat(np.cumsum(counts) - counts, counts)
    due = (ranks + 0.5) / counts[groups].astype(float) ** power
    return order[np.argsort(due[order], kind="stable")]


def token_batches(
    lengths: np.ndarray, batch_tokens: int, seed: int, epoch: int, pool: int = 64, most: int | None = None
) -> list[np.ndarray]:
    """Batches of one epoch, each with at most `batch_tokens` padded tokens and sentences of similar lengths.

    The order depends only on `seed` and `epoch`: shuffle, sort by length within pools of about `pool` batches, cut into batches
    by token budget, shuffle the batches. Every sentence is in exactly one batch.

    Args:
        lengths: (N,) number of tokens in each sentence.
        batch_tokens: largest number of padded tokens.
        seed: decides the order, together with `epoch`.
        epoch: number of the pass over the sentences.
        pool: number of batches whose sentences are sorted together.
        most: largest number of sentences. If the tokens never limit a batch, all but the last have exactly this number.

    Returns:
        Index arrays into the split, each (B,) int64.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths))
    limit = most or len(lengths) or 1
    pool_size = max(1, int(pool * batch_tokens / max(1.0, float(lengths.mean())))) if len(lengths) else 1
    pool_size = pool_size if most is None else min(pool_size, pool * most)
    batches: list[np.ndarray] = []
    for start in range(0, len(order), pool_size):
        chunk = order[start : start + pool_size]
        chunk = chunk[np.argsort(lengths[chunk], kind="stable")]
        first = 0
        for index in range(1, len(chunk) + 1):
            # The chunk is sorted, so the newest sentence is the longest.
            full = index == len(chunk) or index - first == limit
            if full or (index + 1 - first) * padded_length(int(lengths[chunk[index]])) > batch_tokens:
                batches.append(chunk[first:index])
                first = index
    return [batches[index] for index in rng.permutation(len(batches))]
