"""Eq. 4: hand-computed values and properties."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdnas.errors import UsageError
from kdnas.search.limits import make_goal
from kdnas.search.options import SearchOptions
from kdnas.search.reward import reward

from .search_fixture import known_table

LOSSES = st.floats(0, 3)
LATENCIES = st.floats(0.01, 1e4)


@pytest.mark.parametrize(
    ("loss", "latency_ms", "printed"),
    [(0.050, 5.97, 1.07), (0.049, 6.12, 1.07), (0.057, 14.17, 1.01), (0.051, 13.20, 1.02)],
)
def test_reward_matches_published_rewards(loss: float, latency_ms: float, printed: float) -> None:
    """Table 3 of the paper with the teacher's 64.98 ms of Table 2; all printed rewards are about 0.008 higher."""
    assert reward(loss, latency_ms, 64.98) == pytest.approx(printed, abs=0.011)


def test_reward_matches_hand_computed_values() -> None:
    assert reward(0.25, 30.0, 50.0) == pytest.approx(0.75)  # 30 = 0.6 * 50: the latency factor is 1
    assert reward(0.25, 16.0, 8.0, alpha=-0.5, beta=0.5) == pytest.approx(0.75 / 2)  # (16 / 4) ** -0.5
    assert reward(1.5, 16.0, 8.0, alpha=-0.5, beta=0.5) == pytest.approx(-1.0)  # slower is worse, also below zero
    assert reward(1.5, 16.0, 8.0, alpha=-0.5, beta=0.5, above_one="printed") == pytest.approx(
        -0.25
    )  # -0.5 * (16 / 4) ** -0.5
    assert reward(0.4, 3.0, 50.0, alpha=0.0) == pytest.approx(0.6)


@given(LOSSES, LOSSES, LATENCIES, LATENCIES)
def test_reward_decreases_with_loss_and_latency(loss: float, more: float, latency_ms: float, longer: float) -> None:
    first = reward(loss, latency_ms, 50.0)
    assert reward(loss + more, latency_ms, 50.0) <= first
    slower = reward(loss, latency_ms + longer, 50.0)
    assert slower <= first
    if abs(loss - 1) > 1e-6 and longer > 1e-3 * latency_ms:
        assert slower < first


@pytest.mark.parametrize(("latency_ms", "teacher_ms"), [(0.0, 1.0), (-1.0, 1.0), (1.0, 0.0), (float("nan"), 1.0)])
def test_invalid_latency_is_rejected(latency_ms: float, teacher_ms: float) -> None:
    with pytest.raises(UsageError, match="above 0"):
        reward(0.5, latency_ms, teacher_ms)


def test_search_rewards_a_loss_above_1_as_the_options_say() -> None:
    table = known_table()
    arch = table.rows[0].arch
    printed, divided = (make_goal([arch], table, SearchOptions(above_one=how)) for how in ("printed", "divide"))
    assert printed.reward(arch, 1.5) == reward(1.5, table.rows[0].latency_ms, 8.0, above_one="printed")
    assert printed.reward(arch, 1.5) != divided.reward(arch, 1.5)
    assert printed.reward(arch, 0.5) == divided.reward(arch, 0.5)
    with pytest.raises(UsageError, match="above_one is 'x'; allowed are divide, printed"):
        SearchOptions(above_one="x")  # type: ignore[arg-type]
