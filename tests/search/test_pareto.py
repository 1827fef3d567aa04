"""The Pareto front and the hypervolume against their definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdnas.search.pareto import hypervolume, improvements, pareto_front

# Few distinct values, so that ties and repeats are common.
POINTS = st.lists(st.tuples(st.integers(0, 6).map(float), st.integers(0, 6).map(float)), max_size=30)


def beaten(point: tuple[float, float], points: list[tuple[float, float]]) -> bool:
    return any(other != point and other[0] <= point[0] and other[1] <= point[1] for other in points)


@given(POINTS)
def test_front_equals_brute_force(points: list[tuple[float, float]]) -> None:
    expected = [index for index, point in enumerate(points) if not beaten(point, points)]
    found = pareto_front(points)
    assert sorted(found) == expected
    assert [points[index][1] for index in found] == sorted(points[index][1] for index in found)


def test_front_matches_a_hand_computed_one() -> None:
    points = [(0.5, 3.0), (0.3, 9.0), (0.6, 4.0), (0.5, 3.0), (0.9, 1.0), (0.3, 9.5)]
    assert pareto_front(points) == [4, 0, 3, 1]


# Lower corners of the unit cells of the cube below (4, 4, 4).
CELLS = [(x, y, z) for x in range(4) for y in range(4) for z in range(4)]
SOLIDS = st.lists(st.tuples(*[st.integers(0, 5).map(float)] * 3), max_size=12)


def volume(points: list[tuple[float, ...]]) -> int:
    return sum(any(all(a <= b for a, b in zip(point, cell, strict=True)) for point in points) for cell in CELLS)


@given(SOLIDS)
def test_front_of_three_equals_brute_force(points: list[tuple[float, ...]]) -> None:
    beaten = [any(o != p and all(a <= b for a, b in zip(o, p, strict=True)) for o in points) for p in points]
    assert sorted(pareto_front(points)) == [index for index, is_beaten in enumerate(beaten) if not is_beaten]


@given(SOLIDS, st.tuples(*[st.integers(0, 5).map(float)] * 3))
def test_hypervolume_counts_the_dominated_cells(points: list[tuple[float, ...]], candidate: tuple[float, ...]) -> None:
    worst = (4.0, 4.0, 4.0)
    assert hypervolume(points, worst) == pytest.approx(volume(points) / 64)
    gain = improvements(np.array(points).reshape(-1, 3), np.array([candidate]), worst)
    assert gain.tolist() == [volume([*points, candidate]) - volume(points)]


def test_hypervolume_matches_hand_computed_values() -> None:
    assert hypervolume([(0.5, 2.0, 1.0), (0.25, 6.0, 1.0)], (1.0, 8.0, 2.0)) == (0.5 * 6 + 0.25 * 2) / 16
    assert hypervolume([(1.5, 2.0, 1.0)], (1.0, 8.0, 2.0)) == 0.0
