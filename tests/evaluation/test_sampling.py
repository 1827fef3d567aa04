"""Samples of rows: random, with a fixed seed, and even over the languages."""

from collections import Counter

from kdnas.evaluation.rows import Split
from kdnas.evaluation.sampling import sample, spread


def split(sizes: dict[str, int]) -> Split:
    """Rows in the order of the languages and, in each, of the classes."""
    texts, labels, languages = [], [], []
    for language, count in sizes.items():
        texts += [f"{language} {number}" for number in range(count)]
        labels += [int(number >= count // 2) for number in range(count)]
        languages += [language] * count
    return Split(texts, labels, languages, [f"group of {text}" for text in texts])


def test_every_prefix_has_as_many_rows_of_each_language_as_they_reach() -> None:
    rows = spread(split({"a": 200, "b": 10, "c": 100}), seed=0)
    assert Counter(rows.first(27).languages) == {"a": 9, "b": 9, "c": 9}
    assert Counter(rows.first(60).languages) == {"a": 25, "b": 10, "c": 25}
    assert Counter(rows.languages) == {"a": 200, "b": 10, "c": 100}
    assert sorted(rows.texts) == sorted(split({"a": 200, "b": 10, "c": 100}).texts)
    assert all(group == f"group of {text}" for text, group in zip(rows.texts, rows.groups, strict=True))


def test_the_order_is_random_and_fixed_by_the_seed() -> None:
    given = split({"": 300})
    rows = spread(given, seed=0)
    assert 20 < sum(rows.first(100).labels) < 80  # the first half of the given rows has class 0
    assert spread(given, seed=0) == rows
    assert spread(given.rows(range(299, -1, -1)), seed=0) == rows
    assert spread(given, seed=1) != rows
    assert spread(Split(given.texts, given.labels), seed=0).texts == rows.texts


def test_a_sample_is_random_and_keeps_the_order_of_the_rows() -> None:
    given = split({"a": 200, "b": 10})
    rows = sample(given, 50, seed=0)
    assert Counter(rows.languages) == {"a": 50, "b": 10}
    positions = [given.texts.index(text) for text in rows.texts]
    assert positions == sorted(positions)
    assert 10 < sum(rows.labels[:50]) < 40
    assert sample(given, 1000, seed=0) == given
    assert len(sample(Split(given.texts, given.labels), 20, seed=0)) == 20
