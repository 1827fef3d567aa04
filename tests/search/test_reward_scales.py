"""The study of the reward's scales: its estimate of raw losses by hand, and the rows of results/search/reward.md."""

import pytest

from kdnas.models.arch import Arch, SearchSpace
from kdnas.models.table import LatencyTable
from kdnas.search.recording import read_recording

from ..bench.reward_scales import SEARCH, recommended, scaled_loss

VARIANCES = dict(enumerate((0.3125, 0.3007, 0.2973, 0.3403, 0.2572, 0.1433), start=1))


def test_estimated_raw_losses_equal_hand_computed_values() -> None:
    arch = Arch(1, 12, 384, 384)  # learns from layers 1 and 2 of a teacher of two layers
    assert scaled_loss(0.5, arch, {1: 2.0, 2: 6.0}, "normalised") == 0.5
    assert scaled_loss(0.5, arch, {1: 2.0, 2: 6.0}, "mean") == pytest.approx((1.0 + 3.0) / 2)
    assert scaled_loss(0.5, arch, {1: 2.0, 2: 6.0}, "sum") == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("scale", "arch", "value"),
    [
        ("normalised", "6,12,384,1536,gelu", 0.940),
        ("mean", "3,12,288,384,silu", 0.980),
        ("sum", "6,12,384,1536,gelu", 0.922),
    ],
)
def test_page_has_the_recommended_architectures(scale: str, arch: str, value: float) -> None:
    recording, table = read_recording(SEARCH / "proxy-losses.csv"), LatencyTable.load(SEARCH / "latency-table")
    losses = {one: recording(one).loss for one in recording.within(SearchSpace())}
    best, _, reward = recommended(losses, table, VARIANCES, scale)
    assert (str(best), round(reward, 3)) == (arch, value)
    assert f"| `{arch}` |" in (SEARCH / "reward.md").read_text()
