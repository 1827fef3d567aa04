"""Normalisation and the queue, on hand-written logs."""

from typing import Any

import numpy as np
import pytest

from kdnas.latency.protocol import stratify
from kdnas.latency.samples import admitted, gather, movement, next_round

LENGTHS = stratify(np.array([10, 10, 20, 20]), 2)
A, B, C = "3,2,288,384,gelu", "4,2,288,384,gelu", "6,2,288,384,gelu"


def sample(arch: str, reference: float, time_ms: float, kept: bool = True, **more: Any) -> dict[str, Any]:
    times = [[time_ms, 2 * time_ms]] * 3
    return {
        "arch": arch,
        "times_ms": times,
        "references_ms": [reference] * 4,  # before and after each of the three sweeps
        "kept": kept,
        "moved": 0.0,
        "process": 1,
        "seconds": 1.0,
        **more,
    }


def test_movement_ignores_a_single_move() -> None:
    assert movement([5.0, 5.0, 5.0, 7.0]) == 0.0
    assert movement([6.0, 5.0, 5.0, 5.2, 5.0]) == pytest.approx(0.04)
    assert movement([4.0, 5.0, 5.0, 6.0]) == pytest.approx(0.2)
    assert movement([5.0, 6.0]) == pytest.approx(0.5 / 5.5)  # with two references, the one that moved is unknown


def test_drift_cancels() -> None:
    """The host becomes slower by half: both models, one measured at each speed, get the same latency."""
    rows = [sample("teacher", 5.0, 5.0), sample(A, 5.0, 2.0), sample(B, 7.5, 3.0), sample("teacher", 7.5, 7.5)]
    found = gather(rows, [A, B, C], LENGTHS, minimum=2)
    assert [str(arch) for arch in found.archs] == [A, B]
    assert found.latencies[0] == pytest.approx(found.latencies[1])
    assert found.latencies[0] / found.teacher.latencies == pytest.approx([0.4, 0.4])
    assert found.relative_sd == pytest.approx([0.0, 0.0])
    assert (found.discarded, found.readmitted) == (0, 0)


def test_drift_inside_a_window_cancels() -> None:
    """The host slows to half its speed between the sweeps of one window: each is compared with its neighbouring references."""
    moving, steady = sample(A, 5.0, 2.0), sample(B, 6.0, 2.4)
    moving |= {"references_ms": [5.0, 5.0, 10.0, 10.0], "times_ms": [[2.0, 4.0], [3.0, 6.0], [4.0, 8.0]]}
    found = gather([sample("teacher", 5.0, 5.0), moving, steady], [A, B], LENGTHS, minimum=2)
    assert found.latencies[0] == pytest.approx(found.latencies[1])
    assert found.relative_sd == pytest.approx([0.0, 0.0])
    assert found.level_ms == 6.0  # median of 5, 7.5 and 6


def test_sweeps_count_all_used_windows() -> None:
    twice, longer = sample(A, 5.0, 2.0), sample(B, 5.0, 3.0)
    longer |= {"times_ms": [[3.0, 6.0]] * 7, "references_ms": [5.0] * 8}
    discarded = sample(A, 25.0, 2.0, kept=False, moved=4.0)
    rows = [sample("teacher", 5.0, 5.0), twice, longer, discarded, twice]
    found = gather(rows, [B, A], LENGTHS, minimum=2)
    assert [str(arch) for arch in found.archs] == [B, A]
    assert found.sweeps.tolist() == [7, 6]


def test_standard_error_is_that_of_the_median_sweep() -> None:
    steady, moving = sample(A, 5.0, 2.0), sample(B, 5.0, 2.0)
    moving["references_ms"] = [4.0, 5.0, 5.0, 6.0]  # means around the sweeps 4.5, 5 and 5.5: factors 10/9, 1 and 10/11
    found = gather([sample("teacher", 5.0, 5.0), steady, moving], [A, B], LENGTHS, minimum=2)
    assert found.relative_sd == pytest.approx([0.0, 1.2533 * 0.101178 / np.sqrt(3)], rel=1e-4)
    steady["times_ms"] = [[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]]  # sweeps of 1.5, 3, 4.5: sd 1.5, median 3
    found = gather([sample("teacher", 5.0, 5.0), steady], [A], LENGTHS, minimum=1)
    assert found.relative_sd == pytest.approx([1.2533 * 0.5 / np.sqrt(3)])


def test_discarded_windows_are_ignored_and_queued_again() -> None:
    rows = [sample("teacher", 5.0, 5.0), sample(A, 5.0, 2.0), sample(B, 25.0, 30.0, kept=False, moved=4.0)]
    found = gather(rows, [A, B], LENGTHS, minimum=1)
    assert [str(arch) for arch in found.archs] == [A]
    assert (found.discarded, found.readmitted) == (1, 0)
    assert next_round([A, B, C], rows, 1, 0) == ["teacher", B]
    assert sorted(next_round([A, B, C], rows, 9, 0)) == [B, C, "teacher"]


def test_repeatedly_discarded_architectures_move_to_the_end() -> None:
    rows = [sample(A, 5.0, 2.0, kept=False)] * 3
    assert next_round([A, B], rows, 1, 0) == ["teacher", B]
    assert sorted(next_round([A, B], rows, 2, 0)) == [A, B, "teacher"]


def test_the_queue_is_empty_at_the_end() -> None:
    assert next_round([A], [sample(A, 5.0, 2.0)], 5, 0) == []


def test_windows_with_least_movement_are_readmitted_if_too_few_are_left() -> None:
    rows = [
        sample("teacher", 5.0, 5.0, kept=False, moved=0.3),
        sample(A, 5.0, 1.0),
        sample(B, 5.0, 1.0, kept=False, moved=0.5),
        sample(B, 5.0, 2.0, kept=False, moved=0.2),
        sample(C, 5.0, 3.0, kept=False, moved=0.4),
    ]
    chosen, readmitted = admitted(rows, minimum=2)
    assert set(chosen) == {"teacher", A, B}
    assert readmitted == 2
    assert chosen[B][0]["moved"] == 0.2
    assert set(admitted(rows, minimum=1)[0]) == {"teacher", A}
