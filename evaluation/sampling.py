"""Fixed-seed random samples of rows, spread evenly over the languages."""

from collections import Counter

from kdnas.evaluation.rows import Split
from kdnas.evaluation.tasks import position_of


def spread(split: Split, seed: int) -> Split:
    """All rows in a random order that takes one row of each language in turn, so that any prefix is an even random sample.

    Every language has equally many rows in a prefix, as far as its rows reach. Files list languages one after the other, and
    often one class after the other, so the first rows of a file represent neither.

    Args:
        split: the rows.
        seed: seed of the order. The order does not depend on that of the given rows, except among equal texts.
    """
    turn: Counter[str] = Counter()
    keys: list[tuple[int, int, int]] = []  # turn, position in the random order, index
    for row in _by_hash(split, seed):
        language = _language(split, row)
        keys.append((turn[language], len(keys), row))
        turn[language] += 1
    return split.rows([row for _, _, row in sorted(keys)])


def sample(split: Split, most: int, seed: int) -> Split:
    """At most `most` random rows of each language, in the given order."""
    taken: Counter[str] = Counter()
    kept = []
    for row in _by_hash(split, seed):
        language = _language(split, row)
        if taken[language] < most:
            taken[language] += 1
            kept.append(row)
    return split.rows(sorted(kept))


def _by_hash(split: Split, seed: int) -> list[int]:
    """Indices of the rows in the order of the hashes of their texts."""
    texts = [str(text) for text in split.texts]
    return sorted(range(len(split)), key=lambda row: (position_of(texts[row], seed), texts[row]))


def _language(split: Split, row: int) -> str:
    return split.languages[row] if split.languages else ""
