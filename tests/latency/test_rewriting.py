"""The pool of weights that rewritten graphs share, and the substitution of sizes."""

from itertools import pairwise

import numpy as np
import pytest

from kdnas.latency.rewriting import SMALL_BYTES, TEMPLATE_SIZES, Sizes, WeightPool, substitution
from kdnas.models.arch import Arch

PARTS = (1_000_000, 300_001, 64)
TABLE = 2_000_000


@pytest.fixture(scope="module")
def pool() -> WeightPool:
    return WeightPool(PARTS, TABLE, 0)


def test_parts_do_not_overlap(pool: WeightPool) -> None:
    spans = []
    for part, size in zip(pool.parts, PARTS, strict=True):
        part.reset()
        offset, length = part.put(
            np.ones(16_000_000, dtype=np.int16)
        )  # 32 MB: nearly all the space for small constants
        spans.append((offset, offset + length))
        offset, length = part.take(size)  # the whole capacity of the part
        assert length == size
        spans.append((offset, offset + length))
    table = pool.table(0, TABLE)
    spans.append((table, table + TABLE))
    ordered = sorted(spans)
    assert ordered == spans
    for (_, end), (start, _) in pairwise(ordered):
        assert end <= start
    assert spans[-1][1] <= len(pool.bytes)
    assert len(pool.bytes) < sum(PARTS) + TABLE + len(PARTS) * SMALL_BYTES + 64 * (len(PARTS) + 1)


def test_a_part_enforces_its_capacity(pool: WeightPool) -> None:
    part = pool.parts[2]
    part.reset()
    part.take(64)
    with pytest.raises(AssertionError):
        part.take(1)
    part.reset()
    assert part.take(64)[1] == 64


def test_constants_of_a_graph_do_not_overlap(pool: WeightPool) -> None:
    part = pool.parts[0]
    part.reset()
    first, second = part.put(np.array([1, 2, 3], dtype=np.int64)), part.put(np.array([4.0], dtype=np.float32))
    assert (first[1], second[1]) == (24, 4)
    assert second[0] - first[0] == 64
    assert pool.bytes[first[0] :][:24].view(np.int64).tolist() == [1, 2, 3]
    assert pool.bytes[second[0] :][:4].view(np.float32).tolist() == [4.0]
    large, other = part.take(100), part.take(100)
    assert other[0] - large[0] == 128
    part.reset()
    assert part.put(np.zeros(1)) == (first[0], 8)
    assert part.take(100) == large


def test_weights_are_random_and_never_tiny(pool: WeightPool) -> None:
    part = pool.parts[0]
    part.reset()
    offset, size = part.take(800_000)
    values = pool.bytes[offset : offset + size].view(np.float32)
    assert values.std() == pytest.approx(0.02, rel=0.02)
    assert np.abs(values).min() >= 1e-6
    assert len(np.unique(values)) > 0.9 * len(values)


def test_all_parts_share_one_table(pool: WeightPool) -> None:
    for part in pool.parts:
        part.reset()
    first, second = (part.take_table(1000) for part in pool.parts[:2])
    assert first == second
    assert pool.parts[0].take_table(500) == (first[0] + 1024, 500)
    pool.parts[0].reset()
    assert pool.parts[0].take_table(10) == (first[0], 10)


def test_the_table_is_filled_only_as_far_as_it_is_used() -> None:
    fresh = WeightPool([64], TABLE, 0)
    start = len(fresh.bytes) - TABLE
    table = fresh.bytes[start:]
    table[:] = 255  # old content of the memory: NaN
    assert fresh.table(0, 1000) == start
    assert np.isfinite(table[:1024].view(np.float32)).all()
    assert (table[1024:] == 255).all()
    kept = table[:1024].copy()
    assert fresh.table(960, 128) == start + 960
    assert np.isfinite(table[:1088].view(np.float32)).all()
    assert (table[1088:] == 255).all()
    assert (table[:1024] == kept).all()  # graphs in use still read it
    fresh.table(0, TABLE)
    values = table.view(np.float32)
    assert np.isfinite(values).all()
    assert values[1000:].std() == pytest.approx(0.02, rel=0.02)


def test_embeddings_larger_than_the_table_are_refused(pool: WeightPool) -> None:
    assert pool.table(TABLE - 100, 100) + 100 <= len(pool.bytes)
    with pytest.raises(ValueError, match=rf"{TABLE + 65} bytes of embeddings; the pool's table has less"):
        pool.table(0, TABLE + 65)
    with pytest.raises(ValueError, match="the pool's table has less"):
        pool.table(TABLE, 65)


def test_a_pool_depends_only_on_its_seed() -> None:
    first, same, other = (WeightPool([1000], 64, seed) for seed in (0, 0, 1))
    indices = [slice(part.take(1000)[0], None) for pool in (first, same, other) for part in pool.parts]
    values = [pool.bytes[index][:1000] for pool, index in zip((first, same, other), indices, strict=True)]
    assert (values[0] == values[1]).all()
    assert (values[0] != values[2]).any()


def test_sizes_are_substituted_by_number() -> None:
    swap = substitution(Sizes(Arch(4, 12, 576, 768), vocabulary=30522, positions=512))
    assert [swap[number] for number in (5, 14, 70, 93, 101, 59)] == [12, 48, 576, 768, 30522, 512]
    assert len(swap) == 6
    assert substitution(TEMPLATE_SIZES) == {number: number for number in TEMPLATE_SIZES.numbers}


@pytest.mark.parametrize("layers", [1, 2])
def test_fewer_layers_than_the_template_are_refused(layers: int) -> None:
    with pytest.raises(ValueError, match=f"layers is {layers}; a graph is made of at least 3"):
        substitution(Sizes(Arch(layers, 4, 48, 96), vocabulary=211, positions=80))
