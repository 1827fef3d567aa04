"""Batches of sentence pairs: what tasks on two texts ask of an encoder is not learnt from single sentences alone.

Pairs are joined as the tokenizer joins them (`kdnas.text.joining`). The second sentence is another one, or, every other time, one
that begins as the first does, so that attention learns to compare.
"""

from dataclasses import dataclass

import numpy as np

from kdnas.text.joining import Joining
from kdnas.text.padding import pad
from kdnas.text.sentences import Sentences


@dataclass(frozen=True)
class Pairs:
    """How sentences are made into pairs.

    Args:
        joining: the tokenizer's.
        positions: tokens that the model has positions for; the second sentence is cut to them.
    """

    joining: Joining
    positions: int


def pair_batch(
    sentences: Sentences, indices: np.ndarray, pad_id: int, pairs: Pairs, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Padded ids, mask and token types (about B / 2, T) int64 of sentences, two by two; an odd one is joined to another.

    Args:
        sentences: where they are; each with the special tokens of a single text.
        indices: (B,) numbers of the sentences.
        pad_id: of padding tokens.
        pairs: how they are joined.
        rng: draws the order and how much of the first sentence the second begins with.
    """
    order = rng.permutation(indices)
    half = (len(order) + 1) // 2
    start, after = pairs.joining.before, pairs.joining.after
    rows, types = [], []
    for number, (one, other) in enumerate(zip(order[:half], order[-half:], strict=True)):
        first, second = (sentences[int(index)] for index in (one, other))
        end = len(first) - after
        common = int(rng.integers(start, end + 1)) if number % 2 else start
        room = max(0, pairs.positions - (end - start) - pairs.joining.added)
        body = np.concatenate([first[start:common], second[common : len(second) - after]])[:room]
        row, row_types = pairs.joining.pair(first[start:end], body)
        rows.append(row)
        types.append(row_types)
    ids, mask = pad(rows, pad_id)
    return ids, mask, pad(types, 0)[0]
