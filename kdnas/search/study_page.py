"""The files of a study of strategies: its limits, one table as CSV and Markdown, its curves and one plot."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean as average
from typing import Any

import numpy as np

from kdnas.search.comparison_options import ComparisonOptions
from kdnas.search.options import SearchOptions
from kdnas.search.replays import Replay
from kdnas.search.study_cells import GRID, Cell, Estimate, estimate, mean, metrics
from kdnas.search.study_problems import Problem
from kdnas.store.host import host, host_name

ALL = "all"
LIMITS, TABLE, TEXT, CURVES, PAGE = "limits.csv", "strategies.csv", "strategies.md", "curves.csv", "strategies.html"
Rows = list[dict[str, Any]]


def write_study(
    path: Path,
    replays: Sequence[Replay],
    problems: Sequence[Sequence[Problem]],
    cells: Sequence[Cell],
    options: ComparisonOptions,
) -> dict[str, Any]:
    """Write all files of a study.

    Args:
        path: folder.
        replays: the recordings.
        problems: for each recording, the problem of each limit.
        cells: all cells.
        options: of the study.

    Returns:
        Results for the manifest.
    """
    from kdnas.search.study_figure import study_figure

    limits = [
        {"teacher": replay.name, "limit_ms": round(one.limit_ms, 4), "architectures": len(one.losses)}
        | {"evaluations": one.evaluations, "per_episode": one.per_episode, "best_reward": round(one.best[0], 6)}
        for replay, of_recording in zip(replays, problems, strict=True)
        for one in of_recording
    ]
    default = default_of(cells)
    found = table(cells, default, options)
    curves = curve_rows(cells)
    known = {"frozen": options.frozen or "", "commit": host()["commit"] or "", "host": host_name(host())}
    _write(path / LIMITS, limits)
    _write(path / TABLE, [row | known for row in found])
    _write(path / CURVES, curves)
    (path / TEXT).write_text(markdown(found, limits, replays, options, default), encoding="utf-8")
    study_figure(curves).write_html(path / PAGE, config={"displayModeBar": False})
    return {
        "default": f"{default[0]}{', hint' if default[1] else ''}",
        "frozen": options.frozen,
        "strategies": found,
        "recordings": [recording_of(replay) for replay in replays],
        "seconds_per_run": seconds_per_run(cells),
    }


def recording_of(replay: Replay) -> dict[str, Any]:
    """Where the losses of a recording come from."""
    source = replay.recording.source
    return {
        "teacher": replay.name,
        "teacher_digest": source.digest,
        "architectures": len(replay.recording.losses),
        "digest": replay.recording.digest,
        "commits": list(source.commits),
        "hosts": list(source.hosts),
    }


def default_of(cells: Sequence[Cell]) -> tuple[str, bool]:
    """The strategy with which the others are compared: the default of `kdnas search` with the hint, or else the first one."""
    names = [(cell.strategy, cell.hint) for cell in cells]
    wanted = (SearchOptions.strategy, True)
    return wanted if wanted in names else names[0]


def _of(cells: Sequence[Cell], strategy: tuple[str, bool]) -> list[Cell]:
    return [cell for cell in cells if (cell.strategy, cell.hint) == strategy]


def table(cells: Sequence[Cell], default: tuple[str, bool], options: ComparisonOptions) -> Rows:
    """A row for each strategy with and without the hint: over all teachers first, then for each."""
    teachers = list(dict.fromkeys(cell.teacher for cell in cells))
    strategies = list(dict.fromkeys((cell.strategy, cell.hint) for cell in cells))
    rows: Rows = []
    for teacher in [ALL, *teachers] if len(teachers) > 1 else teachers:
        chosen = [cell for cell in cells if teacher in (ALL, cell.teacher)]
        for strategy in strategies:
            found = metrics(_of(chosen, strategy), options.reached_at, _of(chosen, default))
            runs = sum(cell.needed.size for cell in _of(chosen, strategy))
            row: dict[str, Any] = {"teacher": teacher, "strategy": strategy[0], "hint": strategy[1], "runs": runs}
            for name, one in found.items():
                row |= {name: _number(one.value), f"{name}_low": _number(one.low), f"{name}_high": _number(one.high)}
            rows.append(row)
    return rows


def _number(value: float) -> float | None:
    """Rounded; None if it is infinite."""
    return round(value, 6) if np.isfinite(value) else None


def curve_rows(cells: Sequence[Cell]) -> Rows:
    """Mean regret and front over all teachers after each part of the schedule, with intervals."""
    rows: Rows = []
    for strategy, hint in dict.fromkeys((cell.strategy, cell.hint) for cell in cells):
        chosen = _of(cells, (strategy, hint))
        for name in ("regret", "front"):
            values = np.array([getattr(cell, name) for cell in chosen])
            for part in range(GRID):
                one: Estimate = estimate(values[..., part], mean)
                row = {"strategy": strategy, "hint": hint, "metric": name, "schedule": (part + 1) / GRID}
                rows.append(row | {"mean": _number(one.value), "low": _number(one.low), "high": _number(one.high)})
    return rows


def seconds_per_run(cells: Sequence[Cell]) -> dict[str, float]:
    """Mean seconds of the processor for a run of each strategy."""
    found: dict[str, list[float]] = {}
    for cell in cells:
        found.setdefault(cell.strategy, []).extend(float(row["seconds"]) for rows in cell.rows for row in rows)
    return {name: round(average(values), 3) for name, values in found.items()}


def markdown(
    rows: Rows, limits: Rows, replays: Sequence[Replay], options: ComparisonOptions, default: tuple[str, bool]
) -> str:
    """The table as Markdown, with the conditions above it."""
    target = 100 * (1 - options.reached_at)
    left_out = [
        *(["the teacher's own shape"] if options.without_teacher_shape else []),
        *(["architectures added by name"] if options.only_random else []),
    ]
    frozen = f"frozen at commit {options.frozen}" if options.frozen else "not frozen at a named commit"
    lines = [
        f"Strategies {frozen}. {options.limits} limits of latency per teacher (seed {options.limits_seed})"
        f"{', without ' + ' and '.join(left_out) if left_out else ''}. Means (medians of evaluations) with 95 % intervals of a "
        f"bootstrap over teachers, limits and runs. *Reached*: runs within {target:g} % of the best reward after half of the "
        f"schedule. *Against the default*: regret after half of the schedule minus that of `{default[0]}`"
        f"{' with the hint' if default[1] else ''}, in percentage points.",
        "",
        "| teacher | architectures | within a limit | evaluations of the schedule | per episode |",
        "|---|---:|---:|---:|---:|",
    ]
    for replay in replays:
        of_teacher = [row for row in limits if row["teacher"] == replay.name]
        sizes = [row["architectures"] for row in of_teacher]
        first = of_teacher[0]
        lines.append(
            f"| {replay.name} | {len(replay.recording.losses)} | {min(sizes)} to {max(sizes)}, mean {average(sizes):.0f} | "
            f"{first['evaluations']} | {first['per_episode']} |"
        )
    lines += [
        "",
        "| teacher | strategy | hint | runs | regret after a quarter, % | after half, % | reached, % "
        f"| evaluations to {target:g} % | front after half, % | at the end, % | against the default |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    return "\n".join([*lines, *map(_line, rows), ""])


def _line(row: Mapping[str, Any]) -> str:
    def percent(name: str, decimals: int) -> str:
        value, low, high = (100 * row[key] for key in (name, f"{name}_low", f"{name}_high"))
        return f"{value:.{decimals}f} [{low:.{decimals}f}, {high:.{decimals}f}]"

    needed, low, high = (row[f"evaluations_needed{end}"] for end in ("", "_low", "_high"))
    cells = [
        row["teacher"],
        f"`{row['strategy']}`",
        "yes" if row["hint"] else "no",
        str(row["runs"]),
        percent("regret_quarter", 2),
        percent("regret_half", 2),
        percent("reached_half", 0),
        f"{_count(needed)} [{_count(low)}, {_count(high)}]",
        percent("front_half", 1),
        percent("front_end", 1),
        percent("regret_half_over_default", 2),
    ]
    return f"| {' | '.join(cells)} |"


def _count(evaluations: float | None) -> str:
    return "never" if evaluations is None else f"{evaluations:.0f}"


def _write(file: Path, rows: Rows) -> None:
    with file.open("w", newline="") as written:
        out = csv.DictWriter(written, list(rows[0]), lineterminator="\n")
        out.writeheader()
        out.writerows(rows)
