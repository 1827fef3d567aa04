"""Figures of the report: plotly figures from rows, in the style of `kdnas.page.style`."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from kdnas.models.table import TableRow
from kdnas.page.style import (
    BLUE,
    GREY,
    HALO,
    RED,
    Record,
    known,
    legend_entry,
    mark,
    mark_teacher,
    size_axes,
    style,
    text,
    winner_trace,
)


def latency_scatter(table: Sequence[TableRow], results: Record, winner: str | None) -> go.Figure:
    """Latency against size of the whole space, coloured by depth; measured rows have large markers, predicted ones small.

    Args:
        table: rows of the latency table.
        results: results of the latency table, with the teacher's size and latency.
        winner: architecture to mark, or None.
    """
    figure = go.Figure()
    depths = sorted({row.layers for row in table})
    for index, depth in enumerate(depths):
        colour = mark(index).colour
        for source, marker in (
            ("predicted", {"size": 4, "color": colour, "opacity": 0.4}),
            ("measured", {"size": 9, "color": colour, "line": {"width": 1, "color": HALO}}),
        ):
            rows = [row for row in table if row.layers == depth and row.source == source]
            figure.add_scatter(
                x=[row.parameters_millions for row in rows],
                y=[row.latency_ms for row in rows],
                mode="markers",
                marker=marker,
                legendgroup=str(depth),
                showlegend=False,
                customdata=[[text(row.arch), source] for row in rows],
                hovertemplate="<b>%{customdata[0]}</b><br>%{x:.2f} M parameters<br>%{y:.3f} ms, %{customdata[1]}<extra></extra>",
            )
        figure.add_trace(legend_entry(f"{depth} layers", {"size": 9, "color": colour}, str(depth)))
    for name, size, opacity in (("measured", 9, 1.0), ("predicted", 4, 0.7)):
        figure.add_trace(legend_entry(name, {"size": size, "color": GREY, "opacity": opacity}))
    mark_teacher(figure, results)
    for row in [row for row in table if str(row.arch) == winner]:
        figure.add_trace(winner_trace({**asdict(row), "arch": winner}, "parameters_millions", "latency_ms"))
    style(figure, 500).update_layout(legend={"itemsizing": "trace"})
    size_axes(figure)
    return figure


def smoothed(values: Sequence[float]) -> list[float]:
    """Centred running mean over a fortieth of the values."""
    half = max(1, len(values) // 80)
    windows = (values[max(0, index - half) : index + half + 1] for index in range(len(values)))
    return [sum(window) / len(window) for window in windows]


def training_curve(history: Sequence[Record]) -> go.Figure:
    """Training loss (top) and validation on held-out sentences (bottom) over the training tokens.

    The bottom shows the explained variance of the hidden states. For an objective without it (relations) it shows the validation
    loss and its parts.
    """
    train = known([row for row in history if row.get("kind") == "train"], "tokens", "loss")
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.09)
    tokens, losses = [row["tokens"] / 1e6 for row in train], [row["loss"] for row in train]
    for name, values, width, opacity in (
        ("training loss", losses, 1.0, 0.45),
        ("running mean", smoothed(losses), 2.5, 1.0),
    ):
        figure.add_scatter(
            x=tokens,
            y=values,
            mode="lines+markers" if len(tokens) < 3 else "lines",
            line={"color": BLUE, "width": width},
            opacity=opacity,
            name=name,
            showlegend=False,
            hovertemplate="%{x:.3f} M tokens<br>" + name + " %{y:.4f}<extra></extra>",
            row=1,
            col=1,
        )
    checks = [row for row in history if row.get("kind") == "validation"]
    explained = known(checks, "tokens", "explained_variance")
    figure.add_traces(check_traces(explained, checks), rows=2, cols=1)
    style(figure, 430).update_layout(showlegend=True)
    figure.update_yaxes(title_text="training loss", row=1, col=1)
    figure.update_yaxes(title_text="explained variance" if explained else "validation loss", row=2, col=1)
    figure.update_xaxes(rangemode="tozero")
    figure.update_xaxes(title_text="training tokens (millions)", row=2, col=1)
    return figure


def check_traces(explained: Sequence[Record], checks: Sequence[Record]) -> list[go.Scatter]:
    """Curves of the validation on held-out sentences: explained variance, else the loss and its relations."""
    if explained:
        curves = {"explained variance": [(row["tokens"], row["explained_variance"]) for row in explained]}
    else:
        rows = known(checks, "tokens", "validation_loss")
        curves = {"validation loss": [(row["tokens"], row["validation_loss"]) for row in rows]}
        for part in sorted({part for row in rows for part in row.get("relations") or {}}):
            curves[part] = [(row["tokens"], (row.get("relations") or {}).get(part)) for row in rows]
    return [
        go.Scatter(
            x=[tokens / 1e6 for tokens, _ in curve],
            y=[value for _, value in curve],
            mode="lines+markers",
            name=text(name),
            line={"color": mark(index).colour, "dash": mark(index).dash, "width": 1.5 if index else 2.5},
            marker={"size": 5 if index else 7, "symbol": mark(index).symbol},
            showlegend=len(curves) > 1,
            hovertemplate="%{x:.3f} M tokens<br>" + text(name) + " %{y:.4f}<extra></extra>",
        )
        for index, (name, curve) in enumerate(curves.items())
    ]


def layer_bars(stages: dict[str, dict[str, float]]) -> go.Figure:
    """Explained variance of each student layer, with one bar per stage.

    Args:
        stages: for each stage name, the explained variance by layer.
    """
    figure = go.Figure()
    for index, (name, layers) in enumerate(stages.items()):
        kept = {layer: value for layer, value in layers.items() if value is not None}
        figure.add_bar(
            x=[f"layer {text(layer)}" for layer in kept],
            y=list(kept.values()),
            name=name,
            marker={"color": mark(index).colour},
            texttemplate="%{y:.2f}",
            textposition="outside",
            cliponaxis=False,
            hovertemplate="%{x}, after " + text(name) + "<br>explained variance %{y:.4f}<extra></extra>",
        )
    several = len(stages) > 1
    style(figure, 320).update_layout(
        showlegend=several, barmode="group", bargap=0.35 if several else 0.6, bargroupgap=0.08
    )
    figure.update_xaxes(showgrid=False)
    figure.update_yaxes(title_text="explained variance", tickformat=".1f", rangemode="tozero")
    return figure


def speed_bars(
    rows: Sequence[Record], value: str, low: str, high: str, title: str, show: Callable[[Any], str]
) -> go.Figure:
    """Horizontal bars, the first row on top; whiskers reach from `low` to `high`.

    Args:
        rows: rows of the speed artifact.
        value: field of the bar's length.
        low: field where the whisker starts.
        high: field where the whisker ends.
        title: title of the axis, with its unit.
        show: function that formats a number with its unit.
    """
    kept = known(rows, "name", value)
    best = fastest(kept)
    names = [text(row["name"]).replace(" ", "<br>", 1) for row in kept]
    # An unmeasured whisker has length 0.
    lows = [row[value] if row.get(low) is None else min(row[low], row[value]) for row in kept]
    highs = [row[value] if row.get(high) is None else max(row[high], row[value]) for row in kept]
    whiskers = {
        "type": "data",
        "symmetric": False,
        "array": [end - row[value] for row, end in zip(kept, highs, strict=True)],
        "arrayminus": [row[value] - start for row, start in zip(kept, lows, strict=True)],
        "color": GREY,
        "thickness": 2,
        "width": 6,
    }
    figure = go.Figure(
        go.Bar(
            x=[row[value] for row in kept],
            y=names,
            orientation="h",
            marker={"color": [colour_of(row, best) for row in kept]},
            error_x=whiskers,
            customdata=[[text(row["name"]), show(row[value]), show(row.get(low)), show(row.get(high))] for row in kept],
            hovertemplate="<b>%{customdata[0]}</b><br>%{customdata[1]} (%{customdata[2]} to %{customdata[3]})<extra></extra>",
        )
    )
    labels = [f"  <b>{show(row[value])}</b>" for row in kept]
    figure.add_scatter(x=highs, y=names, mode="text", text=labels, textposition="middle right", hoverinfo="skip")
    style(figure, 90 + 50 * len(kept)).update_layout(showlegend=False)
    figure.update_xaxes(title_text=title, range=[0, 1.4 * max(highs, default=1)])
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return figure


def fastest(rows: Sequence[Record]) -> Record | None:
    """The student's row with the largest speed-up; None if no student was timed."""
    students = [row for row in known(rows, "name", "speedup") if not row["name"].startswith("teacher")]
    return max(students, key=lambda row: row["speedup"], default=None)


def colour_of(row: Record, best: Record | None) -> str:
    """Grey for the teacher, red for the fastest form, blue for the others."""
    if row["name"].startswith("teacher"):
        return "#6b7280"
    return RED if best is not None and row["name"] == best["name"] else BLUE
