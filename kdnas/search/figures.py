"""Plots of a search: its candidates, the effects of the fields, strategies compared, and the fidelity of its losses."""

import csv
import math
from collections.abc import Mapping, Sequence
from itertools import accumulate, groupby
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from kdnas.errors import UsageError
from kdnas.models.arch import FIELDS, Arch
from kdnas.models.table import TableRow
from kdnas.page.style import (
    BLUE,
    EPISODES,
    GREY,
    HALO,
    ORANGE,
    PINK,
    TEACHER,
    Record,
    known,
    legend_entry,
    mark,
    style,
    text,
    winner_trace,
)
from kdnas.search.effects import field_effects

BASELINE = {"symbol": "square-open", "size": 11, "color": PINK, "line": {"width": 2}}


def episode_colours(rows: Sequence[Record]) -> Record:
    """Colour axis over the episodes; up to ten episodes get a tick each."""
    episodes = sorted({row["episode"] for row in rows}) or [0]
    bar: Record = {"title": {"text": "episode", "font": {"size": 13}}, "thickness": 12, "outlinewidth": 0, "len": 0.9}
    if len(episodes) <= 10:
        bar |= {"tickvals": episodes, "ticktext": [str(episode) for episode in episodes]}
    return {"colorscale": EPISODES, "cmin": episodes[0], "cmax": max(episodes[-1], episodes[0] + 1), "colorbar": bar}


def candidate_traces(rows: Sequence[Record], x: str, y: str) -> list[go.Scatter]:
    """Candidates as circles (exploration) and diamonds (chosen by the model), coloured by episode."""
    hover = (
        "<b>%{customdata[0]}</b><br>%{customdata[1]}, candidate %{customdata[2]}, episode %{customdata[3]}<br>"
        "loss %{customdata[4]:.4f}<br>latency %{customdata[5]:.3f} ms<br>reward %{customdata[6]:.4f}<extra></extra>"
    )
    traces = []
    for explored, name, symbol, size in (
        (True, "exploration", "circle", 9),
        (False, "chosen by the model", "diamond", 11),
    ):
        picked = [row for row in rows if bool(row.get("explored")) is explored]
        if not picked:
            continue
        # The legend shows the shape only: a colour would stand for an episode.
        traces.append(legend_entry(name, {"symbol": symbol, "size": size, "color": GREY}))
        fields = ("number", "episode", "loss", "latency_ms", "reward")
        traces.append(
            go.Scatter(
                x=[row[x] for row in picked],
                y=[row[y] for row in picked],
                mode="markers",
                showlegend=False,
                marker={
                    "symbol": symbol,
                    "size": size,
                    "color": [row["episode"] for row in picked],
                    "coloraxis": "coloraxis",
                    "opacity": 0.9,
                    "line": {"width": 1, "color": HALO},
                },
                customdata=[[text(row["arch"]), name, *(row.get(name) for name in fields)] for row in picked],
                hovertemplate=hover,
            )
        )
    return traces


def search_scatter(journal: Sequence[Record], results: Record) -> go.Figure:
    """Distillation loss against latency of every candidate, the Pareto front and the winner over them."""
    rows = known(journal, "loss", "latency_ms")
    front = sorted(known(results.get("pareto") or [], "loss", "latency_ms"), key=lambda row: row["latency_ms"])
    figure = go.Figure()
    figure.add_scatter(
        x=[row["latency_ms"] for row in front],
        y=[row["loss"] for row in front],
        mode="lines",
        name="Pareto front",
        line={"shape": "hv", "color": GREY, "width": 2, "dash": "dot"},
        hoverinfo="skip",
    )
    figure.add_traces(candidate_traces(rows, "latency_ms", "loss"))
    figure.add_traces(references(results))
    for row in [row for row in rows if row["arch"] == results.get("winner")][:1]:
        figure.add_trace(winner_trace(row, "latency_ms", "loss"))
    style(figure, 470).update_layout(coloraxis=episode_colours(rows))
    figure.update_xaxes(title_text="latency, batch 1 (ms)", rangemode="tozero")
    hidden = results.get("objective", "hidden-state") == "hidden-state"
    title = "distillation loss (1 − explained variance)" if hidden else "distance from the teacher's embeddings"
    figure.update_yaxes(title_text=title)
    return figure


def search_rewards(journal: Sequence[Record], results: Record) -> go.Figure:
    """Reward of each candidate in the order of the search, and the best so far."""
    rows = sorted(known(journal, "reward", "number"), key=lambda row: row["number"])
    figure = go.Figure()
    figure.add_scatter(
        x=[row["number"] for row in rows],
        y=list(accumulate((row["reward"] for row in rows), max)),
        mode="lines",
        name="best so far",
        line={"shape": "hv", "color": GREY, "width": 2},
        hovertemplate="best after candidate %{x}: %{y:.4f}<extra></extra>",
    )
    figure.add_traces(candidate_traces(rows, "number", "reward"))
    for row in [row for row in rows if row["arch"] == results.get("winner")][:1]:
        figure.add_trace(winner_trace(row, "number", "reward"))
    style(figure, 360).update_layout(coloraxis=episode_colours(rows))
    figure.update_xaxes(
        title_text="candidate, in order of evaluation",
        tickformat="d",
        range=[-1, max((row["number"] for row in rows), default=0) + 1],
    )
    figure.update_yaxes(title_text="reward (Eq. 4)")
    return figure


def references(results: Record) -> list[go.Scatter]:
    """The teacher, with loss 0, and the baselines that the search distilled."""
    made = known(results.get("baselines") or [], "loss", "latency_ms")
    traces = []
    if made:
        traces.append(
            go.Scatter(
                x=[row["latency_ms"] for row in made],
                y=[row["loss"] for row in made],
                mode="markers+text",
                name="baseline",
                marker=BASELINE,
                text=[text(row["name"].split(",")[0]) for row in made],
                textposition="top center",
                customdata=[[text(row["name"]), text(row["arch"])] for row in made],
                hovertemplate="<b>%{customdata[0]}</b><br>%{customdata[1]}<br>loss %{y:.4f}<br>%{x:.3f} ms<extra></extra>",
            )
        )
    if results.get("teacher_latency_ms") is not None:
        traces.append(
            go.Scatter(
                x=[results["teacher_latency_ms"]],
                y=[0],
                mode="markers",
                name="teacher",
                marker=TEACHER,
                cliponaxis=False,
                hovertemplate="<b>teacher</b><br>latency %{x:.3f} ms<extra></extra>",
            )
        )
    return traces


def effect_bars(journal: Sequence[Record], table: Sequence[TableRow]) -> go.Figure | None:
    """What each value of each field adds to the loss and multiplies the latency by, with the other fields fixed.

    Args:
        journal: candidates, with `arch`, `loss` and `latency_ms`.
        table: rows of the latency table, for the effects on the latency; without them the candidates' latencies are used.
    """
    rows = list(known(journal, "loss", "latency_ms"))
    try:
        archs = [Arch.parse(row["arch"]) for row in rows]
    except UsageError:  # a journal that was edited
        return None
    losses = field_effects(archs, [row["loss"] for row in rows])
    if not losses:
        return None
    depths = {arch.layers for arch in archs}
    timed = [(row.arch, row.latency_ms) for row in table if row.layers in depths]
    timed = timed or [(arch, row["latency_ms"]) for arch, row in zip(archs, rows, strict=True)]
    latencies = field_effects([arch for arch, _ in timed], [math.log(latency_ms) for _, latency_ms in timed])
    figure = make_subplots(rows=2, cols=len(losses), shared_yaxes=True, vertical_spacing=0.14, horizontal_spacing=0.02)
    for column, (name, effects) in enumerate(losses.items(), start=1):
        percent = {
            level: 100 * math.expm1(value) for level, value in latencies.get(name, {}).items() if level in effects
        }
        for panel, (values, colour, shown) in enumerate(
            ((effects, BLUE, "loss %{y:+.4f}"), (percent, ORANGE, "latency %{y:+.1f} %")), start=1
        ):
            figure.add_bar(
                x=list(values),
                y=list(values.values()),
                marker={"color": colour},
                hovertemplate=f"{name} %{{x}}: {shown}<extra></extra>",
                row=panel,
                col=column,
            )
        figure.update_xaxes(title_text=name, row=2, col=column)
    style(figure, 440).update_layout(showlegend=False)
    figure.update_xaxes(type="category", showgrid=False)
    figure.update_yaxes(title_text="adds to the loss", row=1, col=1)
    figure.update_yaxes(title_text="slower by (%)", row=2, col=1)
    return figure


Band = tuple[Sequence[float], Sequence[float], Sequence[float]]  # 5th, 50th and 95th percentile, each (evaluations,)


def bands(curves: Mapping[str, Band], title: str) -> go.Figure:
    """Medians over seeds as lines, shaded from the 5th to the 95th percentile, against the architectures evaluated."""
    figure = go.Figure()
    for index, (name, (low, middle, high)) in enumerate(curves.items()):
        drawn, steps = mark(index), np.arange(1, len(middle) + 1)
        figure.add_scatter(
            x=[*steps, *steps[::-1]],
            y=[*high, *low[::-1]],
            fill="toself",
            fillcolor=drawn.shade(0.12),
            line={"width": 0},
            hoverinfo="skip",
            showlegend=False,
            legendgroup=name,
        )
        figure.add_scatter(
            x=steps,
            y=middle,
            mode="lines",
            name=name,
            legendgroup=name,
            line={"color": drawn.colour, "dash": drawn.dash, "width": 2},
            hovertemplate=f"{name}, %{{x}} evaluations: %{{y:.2f}} %<extra></extra>",
        )
    figure.update_xaxes(title_text="architectures evaluated")
    figure.update_yaxes(title_text=title)
    return style(figure, 460)


def strategy_bands(file: Path) -> dict[str, go.Figure]:
    """Regret and front of the strategies in the `curves.csv` of a comparison."""
    rows: dict[str, list[dict[str, str]]] = {}
    with file.open(newline="") as lines:
        for row in csv.DictReader(lines):
            rows.setdefault(row["strategy"], []).append(row)

    def percent(what: str) -> dict[str, Band]:
        def column(name: str, which: str) -> list[float]:
            return [100 * float(row[f"{what}_{which}"]) for row in rows[name]]

        return {name: (column(name, "low"), column(name, "median"), column(name, "high")) for name in rows}

    regret = percent("regret")
    early = (
        min(len(middle) for _, middle, _ in regret.values()) // 20
    )  # before it the strategies have seen too few results
    drawn = bands(regret, "below the best reward (%)")
    drawn.update_yaxes(range=[0, max(high[early] for _, _, high in regret.values())])
    return {"regret": drawn, "hypervolume": bands(percent("hypervolume"), "of the best front (%)")}


def fidelity_scatter(file: Path, results: Record) -> go.Figure:
    """The recorded loss at its largest budget against the loss after long distillation and the retention per task, by heads."""
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    budget = max(row["tokens"] for row in results["taus"])
    tau = {row["against"]: row["tau"] for row in results["taus"] if row["tokens"] == budget}
    panels = {"loss": "loss", **{task: f"kept % {task}" for task in results["tasks"]}}
    titles = [f"{text(name)}, tau {tau[name]:.2f}" for name in panels]
    figure = make_subplots(rows=1, cols=len(panels), subplot_titles=titles, horizontal_spacing=0.08)
    counts = sorted({int(row["heads"]) for row in rows})
    for index, heads in enumerate(counts):
        name, drawn = f"{heads} heads", mark(index)
        marker = {"size": 9, "color": drawn.colour, "symbol": drawn.symbol, "line": {"width": 1, "color": HALO}}
        figure.add_trace(legend_entry(name, marker, name))
        with_these = [row for row in rows if int(row["heads"]) == heads]
        for panel, column in enumerate(panels.values(), start=1):
            figure.add_scatter(
                x=[float(row[f"loss {budget}"]) for row in with_these],
                y=[float(row[column]) for row in with_these],
                mode="markers",
                marker=marker,
                legendgroup=name,
                showlegend=False,
                customdata=[text(",".join(row[field] for field in FIELDS)) for row in with_these],
                hovertemplate="<b>%{customdata}</b><br>recorded %{x:.4f}<br>%{y:.4f}<extra></extra>",
                row=1,
                col=panel,
            )
    style(figure, 430).update_layout(margin={"t": 70}, legend={"y": 1.1})
    figure.update_yaxes(title_text="of the teacher (%)")
    figure.update_yaxes(title_text="loss after long distillation", row=1, col=1)
    figure.update_xaxes(title_text=f"recorded loss, {budget:,} tokens")
    return figure


def tau_table(results: Record) -> dict[int, list[Record]]:
    """Rows of Kendall's tau of each budget in tokens: against the long loss, then against each task."""
    order = ["loss", *results["tasks"]]
    rows = sorted(results["taus"], key=lambda row: (row["tokens"], order.index(row["against"])))
    return {tokens: list(found) for tokens, found in groupby(rows, key=lambda row: row["tokens"])}
