"""Balanced samples of the union: no set drowns the others, and rare labels of a set are kept."""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Literal

from kdnas.evaluation.rows import Split
from kdnas.evaluation.sampling import sample
from kdnas.evaluation.tasks import position_of


def in_turn(split: Split, key: Callable[[int], Hashable], seed: int) -> list[int]:
    """Indices of all rows in a random order that takes one row of each stratum in turn, so that any prefix is even.

    Args:
        split: the rows.
        key: stratum of a row.
        seed: seed of the random order, which depends only on the texts.
    """
    turn: Counter[Hashable] = Counter()
    keys = []
    for number, row in enumerate(sorted(range(len(split)), key=lambda row: (position_of(split.texts[row], seed), row))):
        keys.append((turn[key(row)], number, row))
        turn[key(row)] += 1
    return [row for _, _, row in sorted(keys)]


def spread_over_sets(split: Split, seed: int) -> Split:
    """All rows, one of each set and language in turn."""
    return split.rows(in_turn(split, lambda row: (split.groups[row], split.languages[row]), seed))


def balanced(split: Split, how: Literal["labels", "sets", "off"], most: int, seed: int) -> Split:
    """Train rows of the union.

    Args:
        split: all train rows.
        how: `off` keeps all; `sets` keeps at most `most` random rows of each set and language; `labels` takes these rows from all
            patterns of labels in turn, such as (hate, abuse, unknown profanity), so that rare labels are kept.
        most: maximum number of rows of each set and language.
        seed: seed of the sample.
    """
    if how == "off":
        return spread_over_sets(split, seed)

    def pattern(row: int) -> Hashable:
        return (split.groups[row], split.languages[row], split.labels[row] if how == "labels" else None)

    taken: Counter[Hashable] = Counter()
    kept: list[int] = []
    for row in in_turn(split, pattern, seed):
        stratum = (split.groups[row], split.languages[row])
        if taken[stratum] < most:
            taken[stratum] += 1
            kept.append(row)
    return spread_over_sets(split.rows(kept), seed)


def sampled(split: Split, most: int | None) -> Split:
    """At most `most` random rows of each set and language, as `kdnas suites --max-test`; None keeps all."""
    if most is None:
        return split
    result = Split([], [], [], [])
    for name in dict.fromkeys(split.groups):
        rows = [row for row, group in enumerate(split.groups) if group == name]
        result = result.joined(sample(split.rows(rows), most, seed=0))
    return result


def rows_by_set(groups: Sequence[str]) -> dict[str, int]:
    """Number of rows of each set, for the report."""
    return dict(sorted(Counter(groups).items()))
