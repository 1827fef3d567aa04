"""The compact set of hashes: it answers as Python's set does, and its memory per hash is bounded."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kdnas.text.seen import FIRST_SLOTS, SeenHashes

HASHES = st.integers(0, 2**64 - 1) | st.integers(0, 5) | st.integers(0, 9).map(lambda number: number << 17)


@given(st.lists(HASHES, max_size=300))
def test_answers_as_a_set_does(values: list[int]) -> None:
    seen, expected = SeenHashes(), set[int]()
    for value in values:
        stored = value or 1  # 0 marks an empty slot
        assert seen.add(value) == (stored not in expected)
        expected.add(stored)
        assert len(seen) == len(expected)
    assert not any(seen.add(value) for value in values)


def test_grows_without_losing_hashes_and_takes_at_most_24_bytes_each() -> None:
    values = np.random.default_rng(0).integers(0, 2**64, 2 * FIRST_SLOTS, dtype=np.uint64).tolist()
    seen = SeenHashes()
    assert all(seen.add(value) for value in values)
    assert not any(seen.add(value) for value in values)
    assert len(seen) == len(values) == len(set(values))
    assert 12 <= seen.table_bytes / len(seen) <= 24.001
