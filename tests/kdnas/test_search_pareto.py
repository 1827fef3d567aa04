"""The front against the definition."""

from hypothesis import given
from hypothesis import strategies as st

from kdnas.search.pareto import pareto_front

# Few distinct values, so that ties and repeats are common.
POINTS = st.lists(st.tuples(st.integers(0, 6).map(float), st.integers(0, 6).map(float)), max_size=30)


def beaten(point: tuple[float, float], points: list[tuple[float, float]]) -> bool:
    return any(other != point and other[0] <= point[0] and other[1] <= point[1] for other in points)


@given(POINTS)
def test_equals_brute_force(points: list[tuple[float, float]]) -> None:
    expected = [place for place, point in enumerate(points) if not beaten(point, points)]
    found = pareto_front(points)
    assert sorted(found) == expected
    assert [points[place][1] for place in found] == sorted(points[place][1] for place in found)


def test_hand_worked() -> None:
    points = [(0.5, 3.0), (0.3, 9.0), (0.6, 4.0), (0.5, 3.0), (0.9, 1.0), (0.3, 9.5)]
    assert pareto_front(points) == [4, 0, 3, 1]
