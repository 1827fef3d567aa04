"""The limits of a search: which architectures the options allow, and so its goal."""

import math
from collections.abc import Iterable

from kdnas.errors import UsageError
from kdnas.models.arch import Arch
from kdnas.models.table import LatencyTable
from kdnas.models.table_teacher import is_of_other_teacher
from kdnas.models.teacher import Teacher
from kdnas.search.goal import Goal
from kdnas.search.options import SearchOptions


def make_goal(
    states: Iterable[Arch], table: LatencyTable, options: SearchOptions, teacher: Teacher | None = None
) -> Goal:
    """The architectures that are within the limits of the options, and how they are rewarded.

    Args:
        states: architectures of the published space.
        table: their latencies and sizes.
        options: limits and reward.
        teacher: teacher of the table; the shape of another teacher is ignored.

    Raises:
        UsageError: no architecture is within the limits.
    """
    wanted = list(states)
    latencies = {arch: table.latency_ms(arch) for arch in wanted}
    megabytes = {arch: table.megabytes(arch) for arch in wanted}
    slowest_ms = min(
        options.max_latency_ms or math.inf, (options.max_latency_fraction or math.inf) * table.teacher_latency_ms
    )
    largest = options.max_megabytes or math.inf
    allowed = [arch for arch in wanted if latencies[arch] <= slowest_ms and megabytes[arch] <= largest]
    if not allowed:
        raise UsageError(
            f"max_latency_ms is {options.max_latency_ms}, max_latency_fraction {options.max_latency_fraction}, "
            f"max_megabytes {options.max_megabytes}: none of {len(wanted)} architectures is within these limits; the "
            f"fastest takes {min(latencies.values()):.3g} ms (the teacher {table.teacher_latency_ms:.3g}), the smallest "
            f"{min(megabytes.values()):.3g} MB"
        )
    return Goal(
        {arch: latencies[arch] for arch in allowed},
        table.teacher_latency_ms,
        options.alpha,
        options.beta,
        {arch: megabytes[arch] for arch in allowed},
        options.front,
        teacher.shape if teacher and not is_of_other_teacher(table, teacher) else None,
        options.above_one,
    )
