"""`kdnas recommend`: the most capable architectures of a latency table that fit a latency budget. Needs no torch."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from kdnas.errors import UsageError
from kdnas.models.table import KIND, LatencyTable, TableRow
from kdnas.models.table_teacher import require_teacher
from kdnas.models.teacher import Teacher, resolve_shape
from kdnas.search.pareto import pareto_front
from kdnas.store.artifact import MANIFEST, Artifact
from kdnas.store.outcome import Outcome
from kdnas.store.progress import say, say_table

PLAIN_WIDTH = 100  # columns if stderr is not a terminal


def recommend(
    budget_ms: float,
    table: Path | None = None,
    teacher: str = "builtin:minilm-l6",
    top: int = 10,
    allow_other_teacher: bool = False,
    home: Path = Path("artifacts"),
) -> Outcome:
    """Print the architectures whose mean latency fits a budget as JSON, the most capable first.

    Args:
        budget_ms: largest allowed mean latency in ms, at batch 1 over the table's sentences.
        table: folder that `kdnas latency-table` printed; by default the newest of the teacher below `home`.
        teacher: teacher of the students: `builtin:minilm-l6`, a folder or a hub id; or `builtin:xlm-roberta-base`, the published
            teacher's shape.
        top: maximum number of architectures to print.
        allow_other_teacher: use a table that was measured with another teacher; by default it is rejected.
        home: root of artifacts.

    Raises:
        UsageError: `budget_ms` or `top` is out of range, no architecture fits the budget, no table exists, or the table was
            measured with another teacher.
    """
    if not (math.isfinite(budget_ms) and budget_ms > 0):
        raise UsageError(
            f"budget_ms is {budget_ms:g}; a number of milliseconds above 0 is needed, for example --budget_ms 3"
        )
    if top < 1:
        raise UsageError(f"top is {top}; at least 1 is needed")
    found = resolve_shape(teacher, home)
    artifact = newest_table(home, found) if table is None else Artifact.load(table, KIND)
    known = LatencyTable.of(artifact)
    require_teacher(known, found, allow_other_teacher, "recommend")
    rows = known.rows
    front, others = fitting(rows, budget_ms)
    if not front:
        fastest = min(rows, key=lambda row: row.latency_ms)
        raise UsageError(
            f"budget_ms is {budget_ms:g}: no architecture of {artifact.path} is that fast; the fastest is {fastest.arch} "
            f"with {fastest.latency_ms:.4f} ms; give at least {math.ceil(fastest.latency_ms * 100) / 100:g}"
        )
    shown = [*front, *others][:top]
    say(f"table: {artifact.path}; {origin(artifact)}")
    print_table(shown, len(front))
    say(explanation(shown, len(front), len(front) + len(others), budget_ms))
    archs = [str(row.arch) for row in shown]
    return Outcome(None, {"architectures": archs, "table": str(artifact.path)}, text=json.dumps(archs))


def newest_table(home: Path, teacher: Teacher | None = None) -> Artifact:
    """The latency table below `home` that was finished last; prints a note if there are tables of several engines.

    Args:
        home: root of artifacts.
        teacher: tables of other teachers are left out, unless there are no others.

    Raises:
        UsageError: there is no finished table.
    """
    found = []
    for manifest in sorted((home / KIND).glob(f"*/{MANIFEST}")):
        try:
            found.append(Artifact.load(manifest.parent, KIND))
        except UsageError as error:
            say(f"skipped: {error}")
    if not found:
        raise UsageError(
            f"{home / KIND}: no finished latency table here; run `kdnas latency-table`, or give its folder with --table"
        )
    if teacher is not None:
        found = [
            artifact for artifact in found if artifact.manifest["inputs"].get("teacher") == teacher.digest
        ] or found
    newest = max(found, key=lambda artifact: str(artifact.manifest.get("finished")))
    engines = sorted({str(artifact.results.get("engine")) for artifact in found})
    if len(engines) > 1:
        say(
            f"{home / KIND} has tables of {', '.join(engines)}: using the newest, of {newest.results.get('engine')}; "
            "select another with --table FOLDER"
        )
    return newest


def fitting(rows: Sequence[TableRow], budget_ms: float) -> tuple[list[TableRow], list[TableRow]]:
    """Rows of at most `budget_ms`: those on the Pareto front of low latency and many layer parameters, and the others.

    Both lists are sorted by falling layer parameters, then by rising latency, then by id.
    """
    within = [row for row in rows if row.latency_ms <= budget_ms]
    on_front = set(pareto_front([(-row.layer_parameters_millions, row.latency_ms) for row in within]))
    front = [row for index, row in enumerate(within) if index in on_front]
    others = [row for index, row in enumerate(within) if index not in on_front]
    return sorted(front, key=_capacity), sorted(others, key=_capacity)


def _capacity(row: TableRow) -> tuple[float, float, int]:
    return -row.layer_parameters_millions, row.latency_ms, row.id


def origin(artifact: Artifact) -> str:
    """The engine, host and date of a table, as text."""
    results, host = artifact.results, artifact.manifest.get("host") or {}
    return (
        f"{results.get('engine')}, {results.get('threads')} threads, batch 1, on {host.get('cpu')}, "
        f"finished {artifact.manifest.get('finished')}"
    )


def print_table(rows: Sequence[TableRow], front: int) -> None:
    """Print rows on stderr; a line separates the first `front` rows, the Pareto front, from the others."""
    table = Table(box=None, pad_edge=False, collapse_padding=True)
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("architecture", no_wrap=True)
    for name in ("latency\nms", "95 %\ninterval", "p90\nms", "M in\nlayers", "M in\nall", "of\nteacher"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for index, row in enumerate(rows):
        table.add_row(
            str(index + 1),
            str(row.arch),
            f"{row.latency_ms:.2f}",
            f"{row.low_ms:.2f}-{row.high_ms:.2f}",
            f"{row.p90_ms:.2f}",
            f"{row.layer_parameters_millions:.2f}",
            f"{row.parameters_millions:.2f}",
            f"{100 * row.teacher_ratio:.1f} %",
            row.source,
        )
        if index + 1 == front < len(rows):
            table.add_row("", "not on the front:")
    say_table(table, PLAIN_WIDTH)


def explanation(shown: Sequence[TableRow], front: int, fit: int, budget_ms: float) -> str:
    """Explain the order, and count the shown rows whose interval ends above the budget, as text."""
    close = sum(row.high_ms > budget_ms for row in shown)
    unsure = f"\n{close} of the {len(shown)} shown may be slower than {budget_ms:g} ms: their interval ends above it"
    return (
        f"{len(shown)} of {fit} architectures within {budget_ms:g} ms, most layer parameters (M, millions) first: the {front} on "
        "the Pareto front of latency and layer parameters, then the rest; capacity is a proxy for quality, which "
        "only distillation shows" + (unsure if close else "")
    )
