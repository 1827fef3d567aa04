"""Choice of the next measurements: the design first, then half of each round by expected information."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from kdnas.latency import adaptive
from kdnas.latency.adaptive import DESIGN_FIRST, doubtful, near_cache, near_front, promise, reorder
from kdnas.latency.protocol import design, stratify
from kdnas.latency.samples import Measurement, Measurements
from kdnas.models.arch import Arch, SearchSpace

LENGTHS = stratify(np.array([10, 10, 20, 20]), 2)
DESIGN = design(0)
ORDER = [str(arch) for arch in DESIGN]
SIZE = 20


def measured(archs: list[Arch]) -> Measurements:
    """A host that is up to 25 % slower than an additive cost model predicts, depending on width."""
    slower = np.array([1 + 0.25 * np.sin(arch.hidden / 60) for arch in archs])
    base = np.array([0.2 + arch.layers * 0.05 + arch.layer_parameters * 2e-7 for arch in archs])
    return Measurements(
        archs=archs,
        latencies=np.outer(slower * base, [1.0, 2.0]),
        relative_sd=np.full(len(archs), 0.01),
        sweeps=np.full(len(archs), 6),
        teacher=Measurement(np.array([5.0, 10.0]), 0.01),
        level_ms=5.0,
        discarded=0,
        readmitted=0,
    )


@pytest.fixture
def early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the design chooses the first 40 architectures, which are fitted quickly."""
    monkeypatch.setattr(adaptive, "DESIGN_FIRST", 40)


def reordered(known: list[Arch], seed: int = 0) -> list[str]:
    return reorder(ORDER, measured(known), LENGTHS, SIZE, np.random.default_rng(seed))


def test_the_design_comes_first() -> None:
    assert reordered(DESIGN[: DESIGN_FIRST - 1]) == ORDER
    assert reordered(DESIGN[:DESIGN_FIRST]) != ORDER


@pytest.mark.usefixtures("early")
def test_the_design_chooses_half_of_a_round() -> None:
    gap = [*DESIGN[:30], *DESIGN[31:51]]  # one architecture of the design was discarded
    found = reordered(gap)
    assert len(found) == len(ORDER)
    assert set(found) == set(ORDER)
    waiting = [ORDER[30], *ORDER[51:]]
    assert found[: SIZE // 2] == waiting[: SIZE // 2]
    promising = found[SIZE // 2 : SIZE]
    assert set(promising) <= set(waiting[SIZE // 2 :])
    assert promising != waiting[SIZE // 2 : SIZE]
    assert not set(found[:SIZE]) & {str(arch) for arch in gap}
    assert found[SIZE:] == [name for name in ORDER if name not in found[:SIZE]]


@pytest.mark.slow
@pytest.mark.usefixtures("early")
def test_the_draw_is_random_and_reproducible() -> None:
    known = DESIGN[:40]
    assert reordered(known) == reordered(known)
    assert reordered(known, seed=1)[SIZE // 2 : SIZE] != reordered(known)[SIZE // 2 : SIZE]


def test_the_last_round_takes_the_remaining_architectures() -> None:
    assert reordered(DESIGN[:-SIZE]) == ORDER


@pytest.mark.slow
@pytest.mark.parametrize(
    "unknown", [lambda arch: arch.hidden == 768, lambda arch: arch.layers == 3], ids=["widest", "shallowest"]
)
def test_an_unmeasured_region_has_a_higher_weight(unknown: Callable[[Arch], bool]) -> None:
    known = [arch for arch in DESIGN if not unknown(arch)][:80]
    rest = [arch for arch in SearchSpace() if arch not in known]
    inside = np.array([unknown(arch) for arch in rest])
    weights = promise(rest, measured(known), LENGTHS)
    assert (weights > 0).all()
    assert weights[inside].mean() > 1.5 * weights[~inside].mean()
    even = promise(rest, measured(DESIGN[:80]), LENGTHS)  # the same architectures, with measurements in the region
    assert weights[inside].mean() / weights[~inside].mean() > 1.3 * even[inside].mean() / even[~inside].mean()


def test_near_a_cache_by_hand() -> None:
    """Layer parameters in millions: 2.22 and 8.87 are within 15 % of 2 and 8; 1.67, 5.52, 6.67 and 85 of none."""
    near = [Arch(4, 2, 288, 384), Arch(4, 12, 576, 768)]
    far = [Arch(3, 2, 288, 384), Arch(4, 12, 384, 1024), Arch(12, 2, 288, 384), Arch(12, 12, 768, 3072)]
    millions = [round(arch.layer_parameters / 1e6, 2) for arch in near + far]
    assert millions == [2.22, 8.87, 1.67, 5.52, 6.67, 85.05]
    assert near_cache(near + far).tolist() == [True, True, False, False, False, False]


def test_near_the_front_by_hand() -> None:
    sizes = [Arch(layers, 2, 288, 384) for layers in (3, 4, 6, 10, 12)]
    # 4 layers are the fastest with at least as many weights; 3 layers are 4 % slower than 4, 6 are 31 % slower than 10.
    latency_ms = np.array([1.04, 1.0, 2.1, 1.6, 9.0])
    assert near_front(sizes, latency_ms).tolist() == [True, True, False, True, True]
    assert near_front(sizes[::-1], latency_ms[::-1]).tolist() == [True, True, False, True, True]
    latency_ms[0] = 1.06
    assert near_front(sizes, latency_ms).tolist() == [False, True, False, True, True]
    latency_ms[4] = 0.5  # the largest is the fastest, so only it is on the front
    assert near_front(sizes, latency_ms).tolist() == [False, False, False, False, True]


@pytest.mark.parametrize("mark", ["near_cache", "near_front"])
def test_weight_doubles_near_a_cache_or_the_front(mark: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known = measured(DESIGN[:60])
    rest = DESIGN[60:400]
    whole = promise(rest, known, LENGTHS)
    marks: list[np.ndarray] = []
    real = getattr(adaptive, mark)

    def noted(*given: Any) -> np.ndarray:
        marks.append(real(*given))
        return np.zeros(len(rest))

    monkeypatch.setattr(adaptive, mark, noted)
    without = promise(rest, known, LENGTHS)
    assert 0 < marks[0].sum() < len(rest)
    assert whole / without == pytest.approx(np.where(marks[0], 2, 1))


@pytest.mark.slow
def test_outliers_are_measured_up_to_three_times() -> None:
    found = measured(DESIGN[:DESIGN_FIRST])
    odd = str(found.archs[17])
    found.latencies[17] *= 2
    windows: list[dict[str, Any]] = [{"arch": str(arch), "kept": True} for arch in found.archs]
    names = doubtful(windows, found, LENGTHS)
    assert names[0] == odd
    assert len(names) < DESIGN_FIRST / 4
    assert odd in doubtful([*windows, {"arch": odd, "kept": True}, {"arch": odd, "kept": False}], found, LENGTHS)
    assert odd not in doubtful([*windows, *[{"arch": odd, "kept": True}] * 2], found, LENGTHS)
    assert doubtful(windows, measured(DESIGN[: DESIGN_FIRST - 1]), LENGTHS) == []
