"""`kdnas gate history`: night after night on the same kind of host, the work of each benchmark, and the steps in it.

Seconds of two nights on a shared host differ by what else it does. Times the matrix-product peak that the same process measures
they are work, in GFLOP, of which a slow hour makes no more.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go

from kdnas.errors import KdnasError, UsageError
from kdnas.gates.process import SideError, SuiteOptions, run_process
from kdnas.gates.run import cache_of, suite_of
from kdnas.gates.sides import commit_of, make_side
from kdnas.page.style import BLUE, RED, style
from kdnas.page.write import look, write_page
from kdnas.store.artifact import append_jsonl, read_jsonl
from kdnas.store.host import SOURCE, host_line
from kdnas.store.outcome import Outcome
from kdnas.store.progress import say

FILE, PAGE = "history.jsonl", "history.html"
SEGMENT = 4  # records on either side of a step, at least
SMALLEST = 0.05  # step that is told
PERMUTATIONS, SIGNIFICANT = 999, 0.01


@dataclass(frozen=True)
class Step:
    """A place from which on a benchmark is slower or faster.

    Args:
        place: number of the first record after it.
        ratio: median work after over before.
        chance: share of random orders that show as large a step.
    """

    place: int
    ratio: float
    chance: float


def gate_history(
    folder: Path = Path("artifacts/gate-history"),
    suite: Path | None = None,
    model: Path | None = None,
    measure: bool = True,
    options: SuiteOptions = SuiteOptions(),
    home: Path = Path("artifacts"),
) -> Outcome:
    """Run benchmarks once, add them to a history, and find steps in it; never blocks.

    Args:
        folder: of `history.jsonl`, kept in a branch or between jobs, and of the page.
        suite: file or folder of pytest-benchmark's benchmarks; by default the project's own.
        model: export that the project's own use in place of a random one.
        measure: false only reads the history.
        options: how long a process measures.
        home: root of artifacts, for what is made once.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if measure:
        append_jsonl(folder / FILE, _measured(suite, model, options, home))
    rows = read_jsonl(folder / FILE)
    if not rows:
        raise UsageError(f"{folder / FILE}: no history yet; leave out --measure false")
    found = steps_of(rows)
    lines = []
    for name, step in found.items():
        row = rows[step.place]
        word = "slower" if step.ratio > 1 else "faster"
        lines.append(
            f"{name}: {step.ratio:.3f} times the work, {word} since {row['time']}, commit {row['commit'][:12]}"
        )
    page = write_history_page(folder / PAGE, rows, found)
    say(f"gate: {len(rows)} records, {len(found)} steps; page: {page}")
    return Outcome(page, {"records": len(rows), "steps": lines}, text="\n".join(lines))


def _measured(suite: Path | None, model: Path | None, options: SuiteOptions, home: Path) -> dict[str, Any]:
    side = make_side(".", model, home / "gate", SOURCE)
    try:
        found = run_process(side, suite_of(suite, side), cache_of(home, side), options)
    except SideError as error:
        raise KdnasError(f"gate: {error}") from error
    peak = found.report["machine_info"]["kdnas_peak_gflops"]
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit_of(SOURCE),
        "peak_gflops": peak,
        "seconds": found.seconds,
        "machine": found.machine,
    }


def works_of(rows: Sequence[dict[str, Any]], name: str) -> np.ndarray:
    """Work of a benchmark in GFLOP by record, (N,); NaN where a record lacks it or is of another kind of host than the last."""
    machine = rows[-1]["machine"]
    return np.array(
        [
            row["seconds"][name] * row["peak_gflops"]
            if name in row["seconds"]
            and (row["machine"]["cpu"], row["machine"]["cores"]) == (machine["cpu"], machine["cores"])
            else np.nan
            for row in rows
        ]
    )


def steps_of(rows: Sequence[dict[str, Any]]) -> dict[str, Step]:
    """The largest step of each benchmark that has one."""
    found = {}
    for name in rows[-1]["seconds"]:
        works = works_of(rows, name)
        places = np.flatnonzero(np.isfinite(works))
        step = find_step(np.log(works[places]))
        if step is not None:
            found[name] = Step(int(places[step.place]), step.ratio, step.chance)
    return found


def find_step(values: np.ndarray) -> Step | None:
    """The split of logarithms, (N,), whose sides differ most in rank, if random orders hardly show as large a difference."""
    if len(values) < 2 * SEGMENT:
        return None
    from scipy.stats import rankdata

    ranks = rankdata(values)
    place, difference = _best_split(ranks)
    ratio = float(np.exp(np.median(values[place:]) - np.median(values[:place])))
    if abs(ratio - 1) < SMALLEST:
        return None
    rng = np.random.default_rng(0)
    larger = sum(_best_split(rng.permutation(ranks))[1] >= difference for _ in range(PERMUTATIONS))
    chance = (larger + 1) / (PERMUTATIONS + 1)
    return Step(place, ratio, chance) if chance <= SIGNIFICANT else None


def _best_split(ranks: np.ndarray) -> tuple[int, float]:
    """Number of records before the split, and how much it explains."""
    before = np.arange(SEGMENT, len(ranks) - SEGMENT + 1)
    after = len(ranks) - before
    sums = np.cumsum(ranks)[before - 1]
    difference = np.abs((ranks.sum() - sums) / after - sums / before) * np.sqrt(before * after)
    best = int(np.argmax(difference))
    return int(before[best]), float(difference[best])


def write_history_page(page: Path, rows: Sequence[dict[str, Any]], steps: dict[str, Step]) -> Path:
    """Write one HTML file that needs no network: each benchmark's work by record, its step marked; returns it."""
    figures = {}
    for number, name in enumerate(rows[-1]["seconds"]):
        works = works_of(rows, name)
        figure = go.Figure()
        hover = [
            f"{row['time']}<br>{row['commit'][:12]}<br>{1000 * row['seconds'].get(name, np.nan):.3f} ms" for row in rows
        ]
        line = {"color": BLUE, "width": 2}
        figure.add_scatter(
            x=[row["time"] for row in rows], y=[None if np.isnan(one) else one for one in works], mode="lines+markers", line=line,
            text=hover, hovertemplate="%{text}<br>%{y:.3g} GFLOP<extra></extra>", showlegend=False,
        )  # fmt: skip
        if name in steps:
            figure.add_vline(x=rows[steps[name].place]["time"], line={"color": RED, "dash": "dot"})
        figure.update_yaxes(title_text="work (GFLOP)", rangemode="tozero")
        figures[f"benchmark-{number}"] = {
            "name": name,
            "figure": json.loads(style(figure, 260).to_json()),
            "step": steps.get(name),
        }
    write_page(page, "kdnas.gates", {**look(), "figures": figures, "rows": rows, "host": host_line()})
    return page
