"""Normalisation and the queue, on logs written by hand."""

from typing import Any

import numpy as np
import pytest

from latency.protocol import stratify
from latency.samples import admitted, gather, movement, next_round, reference_history, running_level

LENGTHS = stratify(np.array([10, 10, 20, 20]), 2)
A, B, C = "3,2,288,384,gelu", "4,2,288,384,gelu", "6,2,288,384,gelu"


def sample(arch: str, reference: float, time_ms: float, kept: bool = True, **more: Any) -> dict[str, Any]:
    times = [[time_ms, 2 * time_ms]] * 3
    return {
        "arch": arch,
        "times_ms": times,
        "reference_before_ms": reference,
        "reference_after_ms": reference,
        "kept": kept,
        "moved": 0.0,
        "process": 1,
        "seconds": 1.0,
        **more,
    }


def test_running_level_ignores_a_burst_and_follows_a_lasting_change() -> None:
    assert running_level([5.0] * 14 + [25.0]) == 5.0
    assert running_level([5.0] * 20 + [6.0] * 8) == 6.0


def test_movement_takes_the_worse_neighbour() -> None:
    assert movement(5.0, 5.2, 5.0) == pytest.approx(0.04)
    assert movement(4.0, 5.2, 5.0) == pytest.approx(0.2)


def test_history_has_each_window_once() -> None:
    rows = [sample(A, 5.0, 1.0, first_reference_ms=[4.0, 5.0]), sample(B, 6.0, 1.0)]
    assert reference_history(rows) == [4.0, 5.0, 5.0, 6.0]


def test_drift_cancels() -> None:
    """The host slows by half in the middle: both models, measured at either speed, come out alike."""
    rows = [sample("teacher", 5.0, 5.0), sample(A, 5.0, 2.0), sample(B, 7.5, 3.0), sample("teacher", 7.5, 7.5)]
    found = gather(rows, [A, B, C], LENGTHS, minimum=2)
    assert [str(arch) for arch in found.archs] == [A, B]
    assert found.latencies[0] == pytest.approx(found.latencies[1])
    assert found.latencies[0] / found.teacher.latencies == pytest.approx([0.4, 0.4])
    assert found.relative_sd == pytest.approx([0.0, 0.0])
    assert (found.discarded, found.readmitted) == (0, 0)


def test_standard_error_joins_spread_and_drift() -> None:
    steady, moving = sample(A, 5.0, 2.0), sample(B, 5.0, 2.0)
    moving |= {"reference_before_ms": 4.9, "reference_after_ms": 5.1}
    found = gather([sample("teacher", 5.0, 5.0), steady, moving], [A, B], LENGTHS, minimum=2)
    assert found.relative_sd == pytest.approx([0.0, 0.02])
    steady["times_ms"] = [[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]]  # sweeps of 1.5, 3, 4.5: sd 1.5, median 3
    found = gather([sample("teacher", 5.0, 5.0), steady], [A], LENGTHS, minimum=1)
    assert found.relative_sd == pytest.approx([1.2533 * 0.5 / np.sqrt(3)])


def test_discarded_windows_do_not_count_and_are_queued_again() -> None:
    rows = [sample("teacher", 5.0, 5.0), sample(A, 5.0, 2.0), sample(B, 25.0, 30.0, kept=False, moved=4.0)]
    found = gather(rows, [A, B], LENGTHS, minimum=1)
    assert [str(arch) for arch in found.archs] == [A]
    assert (found.discarded, found.readmitted) == (1, 0)
    assert next_round([A, B, C], rows, 1, 0) == ["teacher", B]
    assert sorted(next_round([A, B, C], rows, 9, 0)) == [B, C, "teacher"]


def test_what_is_always_discarded_gives_way() -> None:
    rows = [sample(A, 5.0, 2.0, kept=False)] * 3
    assert next_round([A, B], rows, 1, 0) == ["teacher", B]
    assert sorted(next_round([A, B], rows, 2, 0)) == [A, B, "teacher"]


def test_nothing_left() -> None:
    assert next_round([A], [sample(A, 5.0, 2.0)], 5, 0) == []


def test_least_moved_come_back_where_too_few_are_left() -> None:
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
