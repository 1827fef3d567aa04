"""How often the sentences of each language are drawn."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdnas.distill.batches import TrainBatches
from kdnas.distill.options import LoopOptions
from kdnas.models.teacher import Teacher
from kdnas.text.corpus import build_corpus
from kdnas.text.readers import TextOptions
from kdnas.text.sentences import MOST_REPEATS, balanced, balanced_order, draws_of

sizes = st.lists(st.integers(0, 300), min_size=1, max_size=40).filter(any)


@given(sizes, st.floats(0, 1))
def test_draws_of_languages_are_within_their_limits(counts: list[int], power: float) -> None:
    array, total = np.array(counts), sum(counts)
    draws = draws_of(array, power, total)
    assert draws.sum() == total
    assert (draws <= MOST_REPEATS * array).all()
    assert (draws >= (array > 0)).all()
    assert np.array_equal(draws, draws_of(array, power, total))
    if power == 1:
        assert np.array_equal(draws, array)
    weights = np.where(array > 0, array.astype(float) ** power, 0)
    expected = total * weights / weights.sum()
    if (expected <= MOST_REPEATS * array).all() and (expected[array > 0] >= 1).all():
        assert np.abs(draws - expected).max() <= 1


@pytest.mark.parametrize(
    ("counts", "power", "draws"),
    [
        ([16, 81], 0.25, [39, 58]),  # weights 2 and 3 of 97 sentences
        ([1000, 10], 0.5, [970, 40]),  # 92 for the small one without the limit
        ([16, 81, 1], 0.25, [38, 56, 4]),  # 4 for the smallest; the others divide 94 by 2 to 3
        ([100, 0, 100], 0.3, [100, 0, 100]),
        ([9999, 1], 1, [9999, 1]),
        ([10, 10, 10], 0, [10, 10, 10]),
    ],
)
def test_draws_of_languages_by_hand(counts: list[int], power: float, draws: list[int]) -> None:
    assert draws_of(np.array(counts), power, sum(counts)).tolist() == draws


@given(st.lists(st.integers(0, 9), min_size=1, max_size=400), st.floats(0, 1), st.integers(0, 9))
def test_languages_are_drawn_as_often_as_decided(groups: list[int], power: float, seed: int) -> None:
    array = np.array(groups)
    chosen = balanced(array, power, np.random.default_rng(seed))
    assert np.array_equal(chosen, balanced(array, power, np.random.default_rng(seed)))
    assert np.array_equal(np.bincount(array[chosen]), draws_of(np.bincount(array), power, len(array)))
    times = np.bincount(chosen, minlength=len(array))
    assert times.max() <= MOST_REPEATS
    for group in set(groups):  # within a group, the numbers of draws differ by at most one
        assert np.ptp(times[array == group]) <= 1
    if power == 1:
        assert (times == 1).all()


def test_epochs_sample_languages_by_language_power(tmp_path: Path, tiny_teacher: Teacher) -> None:
    file = tmp_path / "many.jsonl"
    rows = [{"text": f"sentence number {n} of many", "lang": "en" if n % 5 else "sw"} for n in range(2000)]
    file.write_text("\n".join(map(json.dumps, rows)))
    corpus = build_corpus(tmp_path, str(file), TextOptions(), tiny_teacher)
    counts = Counter(corpus.train.languages)
    assert corpus.artifact.results["train_languages"] == corpus.train.language_counts == counts
    options = LoopOptions(batch_tokens=512, language_power=0.3)
    epochs = [TrainBatches(corpus.train, corpus.pad_id, options, None).epoch(number) for number in (0, 0, 1)]
    assert all(np.array_equal(*both) for both in zip(epochs[0], epochs[1], strict=True))
    chosen = np.concatenate(epochs[0])
    languages = np.array(corpus.train.languages)
    rare = int((languages == "sw").sum())
    fraction = rare**0.3 / (rare**0.3 + (len(languages) - rare) ** 0.3)
    assert np.mean(languages[chosen] == "sw") == pytest.approx(fraction, abs=0.01)
    assert len(chosen) == len(languages)
    assert sorted(chosen) != sorted(np.concatenate(epochs[2]))


@given(st.lists(st.integers(0, 9), min_size=1, max_size=400), st.floats(0, 1), st.integers(0, 400), st.integers(0, 9))
def test_the_beginning_of_an_order_is_balanced(groups: list[int], power: float, count: int, seed: int) -> None:
    array = np.array(groups)
    order = balanced_order(array, power, np.random.default_rng(seed))
    assert np.array_equal(order, balanced_order(array, power, np.random.default_rng(seed)))
    assert sorted(order.tolist()) == list(range(len(groups)))
    sizes = np.bincount(array)
    chosen = np.bincount(array[order[:count]], minlength=len(sizes))
    weights = np.where(sizes > 0, sizes.astype(float) ** power, 0.0)
    left = chosen < sizes  # groups that still have sentences after these
    due = (chosen[left] - 0.5) / weights[left]
    assert np.all(due[:, None] < (chosen[left] + 0.5)[None, :] / weights[left][None, :] + 1e-9)


def test_an_order_of_one_language_is_a_permutation() -> None:
    order = balanced_order(np.zeros(50, dtype=np.int32), 0.3, np.random.default_rng(7))
    assert np.array_equal(order, np.random.default_rng(7).permutation(50))
