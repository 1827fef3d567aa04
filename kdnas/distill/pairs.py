"""Batches of sentence pairs, because single sentences do not prepare an encoder for tasks on two texts.

Pairs are joined as by the tokenizer (`kdnas.text.joining`). In half of the pairs the second text is another sentence; in the
other half it starts with the beginning of the first, so that attention learns to compare.
"""

from dataclasses import dataclass

import numpy as np

from kdnas.errors import UsageError
from kdnas.text.corpus import Corpus
from kdnas.text.joining import Joining
from kdnas.text.padding import pad
from kdnas.text.sentences import Sentences


@dataclass(frozen=True)
class Pairs:
    """How sentences are joined to pairs.

    Args:
        joining: the tokenizer's way to join two texts.
        positions: maximum number of tokens in a pair, the model's number of positions; the second sentence is truncated.
    """

    joining: Joining
    positions: int


def neighbours(groups: np.ndarray) -> np.ndarray:
    """Number of each sentence's partner, (N,): the next one of the same group, else the one before, else itself.

    Args:
        groups: (N,) number of each sentence's group; the sentences of a group stand together.
    """
    numbers = np.arange(len(groups))
    same = groups[1:] == groups[:-1]
    after, before = np.append(same, False), np.insert(same, 0, False)
    return np.where(after, numbers + 1, np.where(before, numbers - 1, numbers))


def partners_of(corpus: Corpus) -> np.ndarray:
    """The partner of each train sentence in the contrastive term, (N,): a neighbour of the same group.

    Raises:
        UsageError: no two sentences that follow each other have the same group.
    """
    partners = neighbours(corpus.train.groups.numbers())
    if (partners == np.arange(len(partners))).all():
        raise UsageError(
            f"corpus '{corpus.name}': no two neighbouring texts have the same group, so there are no pairs for "
            "contrastive_weight; name the column of the document with --text.group, or leave the option out"
        )
    return partners


def pair_batch(
    sentences: Sentences, indices: np.ndarray, pad_id: int, pairs: Pairs, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Padded ids, mask and token types (about B / 2, T) int64 of sentence pairs; if B is odd, one sentence is used twice.

    Args:
        sentences: the split; each sentence has the special tokens of a single text.
        indices: numbers (B,) of the sentences.
        pad_id: id of the padding token.
        pairs: how sentences are joined.
        rng: draws the order, and the number of tokens of the first sentence that the second repeats.
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
