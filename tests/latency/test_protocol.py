"""Lengths, quantiles, the design, option limits."""

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdnas.errors import UsageError
from kdnas.latency.protocol import (
    HELD_OUT,
    LatencyOptions,
    calls_per_length,
    design,
    held_out,
    interpolation,
    length_step,
    padded,
    sample_lengths,
    stratify,
    weighted_quantile,
)
from kdnas.models.arch import FIELDS, Arch, SearchSpace, arch_id
from kdnas.store.host import physical_cores

LENGTHS = st.lists(st.integers(1, 512), min_size=1, max_size=300).map(np.array)


def test_strata_by_hand() -> None:
    lengths = stratify(np.array([10, 10, 20, 20, 30, 30]), 3)
    assert lengths.strata.tolist() == [10, 20, 30]
    assert lengths.weights == pytest.approx([1 / 3, 1 / 3, 1 / 3])
    # Latencies 1, 2, 4 ms: the mean is 7/3; 50 % of the sentences take at most 2 ms, 90 % at most 4.
    assert float(lengths.mean(np.array([1.0, 2.0, 4.0]))) == pytest.approx(7 / 3)
    assert lengths.quantile(np.array([1.0, 2.0, 4.0]), 0.5) == 2.0
    assert lengths.quantile(np.array([1.0, 2.0, 4.0]), 0.9) == 4.0


def test_timed_lengths_are_those_that_sessions_pad_to() -> None:
    assert (length_step("openvino-int8"), length_step("onnxruntime-f32"), length_step("pytorch-f32")) == (8, 1, 1)
    sample = padded(np.clip(np.random.default_rng(0).lognormal(3, 0.5, 10_000).astype(int), 4, 128), 8)
    assert sample.min() == 8
    lengths = stratify(sample, step=8)
    assert len(lengths.strata) >= 7
    assert not (lengths.strata % 8).any()
    assert float(lengths.mean(lengths.strata)) == pytest.approx(sample.mean())
    # A latency that is linear in the padded length is reproduced exactly.
    assert float(lengths.mean(0.3 + 0.01 * lengths.strata)) == pytest.approx(float((0.3 + 0.01 * sample).mean()))
    assert stratify(padded(np.array([3, 5]), 8), step=8).strata.tolist() == [8]


def test_fractions_by_hand() -> None:
    """8 tokens: 3 of 8 sentences; 16: 4; 32: 1."""
    lengths = stratify(padded(np.array([2, 3, 8, 9, 10, 11, 16, 25]), 8), step=8)
    assert lengths.strata.tolist() == [8, 16, 32]
    assert lengths.fractions.tolist() == [3 / 8, 4 / 8, 1 / 8]
    assert (calls_per_length("openvino-int8"), calls_per_length("onnxruntime-f32")) == (2, 1)


def test_interpolation_by_hand() -> None:
    matrix = interpolation(np.array([5, 10, 15, 25]), np.array([10, 20]))
    assert matrix.tolist() == [[1.5, -0.5], [1.0, 0.0], [0.5, 0.5], [-0.5, 1.5]]


@given(LENGTHS, st.integers(1, 9))
def test_mean_of_strata_is_mean_of_sentences(sample: np.ndarray, strata: int) -> None:
    lengths = stratify(sample, strata)
    assert lengths.weights.sum() == pytest.approx(1)
    assert np.all(np.diff(lengths.strata) > 0)
    assert lengths.counts.sum() == len(sample)
    if len(lengths.strata) > 1:
        assert float(lengths.mean(lengths.strata)) == pytest.approx(sample.mean())
    else:
        assert abs(lengths.strata[0] - sample.mean()) <= 0.5


def test_mean_of_a_curved_latency_is_close() -> None:
    sample = np.clip(np.random.default_rng(0).lognormal(3, 0.5, 10_000).astype(int), 4, 128)
    lengths = stratify(sample)
    curve = lambda length: 1 + 0.1 * length + 0.0005 * length**2  # noqa: E731
    assert float(lengths.mean(curve(lengths.strata))) == pytest.approx(curve(sample).mean(), rel=0.02)


def test_lengths_are_seeded_and_drawn_without_replacement() -> None:
    population = np.arange(1, 20_001)
    drawn = sample_lengths(population, seed=3, sentences=10_000)
    assert len(drawn) == 10_000
    assert len(set(drawn.tolist())) == 10_000
    assert np.array_equal(drawn, sample_lengths(population, seed=3, sentences=10_000))
    assert not np.array_equal(drawn, sample_lengths(population, seed=4, sentences=10_000))
    assert (
        len(sample_lengths(np.array([5, 9]), seed=0, sentences=10_000)) == 10_000
    )  # with replacement if there are fewer


def test_quantile_by_hand() -> None:
    values, weights = np.array([3.0, 1.0, 2.0]), np.array([1, 2, 1])
    assert [weighted_quantile(values, weights, fraction) for fraction in (0, 0.5, 0.51, 0.75, 0.76, 1)] == [
        1,
        1,
        2,
        2,
        3,
        3,
    ]


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 6)), min_size=1, max_size=30), st.integers(0, 100))
def test_weighted_quantile_equals_that_of_repeated_values(pairs: list[tuple[int, int]], percent: int) -> None:
    values, weights = (np.array(column, dtype=float) for column in zip(*pairs, strict=True))
    repeated = np.repeat(values, weights.astype(int))
    expected = np.quantile(repeated, percent / 100, method="inverted_cdf")
    assert weighted_quantile(values, weights, percent / 100) == expected


@pytest.fixture(scope="module")
def order() -> list[Arch]:
    return design(0)


def test_design_and_held_out_partition_the_space(order: list[Arch]) -> None:
    apart = held_out()
    assert len(apart) == len(set(apart)) == HELD_OUT == 59
    assert len(order) == 2400 - 59
    assert not set(order) & set(apart)
    assert set(order) | set(apart) == set(SearchSpace())


def test_held_out_never_changes(order: list[Arch]) -> None:
    """So bounds of different tables are comparable, and no table is fitted to the test set of another."""
    apart = held_out()
    assert [str(arch) for arch in (*apart[:3], apart[-1])] == [
        "3,2,576,512,gelu",
        "3,2,576,512,silu",
        "3,2,768,1024,gelu",
        "12,12,768,1024,gelu",
    ]
    assert [arch_id(arch) for arch in apart] == sorted(arch_id(arch) for arch in apart)
    assert not set(design(1)) & set(apart)


@pytest.mark.parametrize("count", [40, 100, 333, 600])
def test_every_prefix_is_balanced(order: list[Arch], count: int) -> None:
    space = SearchSpace()
    for size, slack in ((1, 1), (2, 2)):
        for names in combinations(FIELDS, size):
            cells = int(np.prod([len(getattr(space, name)) for name in names]))
            used = Counter(tuple(getattr(arch, name) for name in names) for arch in order[:count])
            spread = [used[cell] for cell in used] + [0] * (cells - len(used))
            assert max(spread) <= count / cells + slack + 0.1 * count / cells, names
            assert min(spread) >= count / cells - slack - 0.1 * count / cells, names


def test_every_cell_is_used_before_one_is_repeated(order: list[Arch]) -> None:
    assert len({(arch.heads, arch.hidden, arch.ffn, arch.activation) for arch in order[:480]}) == 480


def test_design_depends_only_on_the_seed(order: list[Arch]) -> None:
    assert design(0) == order
    assert design(1)[:20] != order[:20]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("minutes", 0.1),
        ("minutes", float("nan")),
        ("threads", 0),
        ("threads", physical_cores() + 1),
        ("seed", -1),
        ("tolerance", 0.0),
        ("max_architectures", 3),
    ],
)
def test_options_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=name):
        LatencyOptions(**{name: value})
