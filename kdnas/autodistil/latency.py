"""Latencies of members from a latency table, also of members that are not among its 2400 architectures."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kdnas.errors import UsageError
from kdnas.models.arch import Arch, SearchSpace
from kdnas.models.table import LatencyTable
from kdnas.models.table_teacher import require_teacher
from kdnas.models.teacher import Teacher
from kdnas.store.host import host, host_name
from kdnas.store.progress import say

TABLE, FITTED = "table", "fitted"


class Latency(NamedTuple):
    """Latency of a member in ms, and whether it is from the `table` or `fitted` to its rows."""

    ms: float
    source: str


def latencies(table: LatencyTable, archs: Sequence[Arch]) -> dict[Arch, Latency]:
    """Latency of each member.

    A member outside the published space gets a + L (b + c F) for L layers and feed-forward size F, fitted by least squares of
    relative errors to the table's rows with its hidden size, heads and activation.

    Args:
        table: the latency table.
        archs: members.

    Raises:
        UsageError: a member is outside the published space, and the table has no rows like it.
    """
    space = SearchSpace()
    return {arch: Latency(table.latency_ms(arch), TABLE) if arch in space else _fitted(table, arch) for arch in archs}


def _fitted(table: LatencyTable, arch: Arch) -> Latency:
    kind = (arch.heads, arch.hidden, arch.activation)
    rows = [row for row in table.rows if (row.heads, row.hidden, row.activation) == kind]
    if not rows:
        space = SearchSpace()
        raise UsageError(
            f"architecture {arch}: the latency table has no rows with {arch.heads} heads, hidden size {arch.hidden} and "
            f"{arch.activation}; it has heads {list(space.heads)}, hidden sizes {list(space.hidden)}"
        )
    ms = np.array([row.latency_ms for row in rows])
    columns = np.array([[1.0, row.layers, row.layers * row.ffn] for row in rows]) / ms[:, None]
    solution = np.linalg.lstsq(columns, np.ones(len(rows)), rcond=None)[0]
    fitted = float(np.array([1.0, arch.layers, arch.layers * arch.ffn]) @ solution)
    fastest = min(row.latency_ms for row in rows) * arch.layers / max(row.layers for row in rows)
    return Latency(max(fitted, fastest), FITTED)


def require_table(table: LatencyTable, teacher: Teacher, other_teacher: bool, other_host: bool, what: str) -> None:
    """Reject a table of another teacher or host, or only warn of it if it is allowed.

    Args:
        table: the latency table.
        teacher: the teacher of the family.
        other_teacher: the user allowed another teacher.
        other_host: the user allowed another host.
        what: the command, for messages.

    Raises:
        UsageError: the table is of another teacher or host, and this is not allowed.
    """
    require_teacher(table, teacher, other_teacher, what)
    here = host_name(host())
    if table.host in ("", here):
        return
    message = f"the latency table was measured on another host: {table.host}; this is {here}"
    if not other_host:
        raise UsageError(
            f"{message}; measure one here with `kdnas latency-table`, or use it all the same with --allow-other-host true"
        )
    say(f"{what}: {message}")
