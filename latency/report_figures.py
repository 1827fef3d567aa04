"""Plotly figures of the latency report, made from table rows, in the style of `kdnas.page.style`."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from kdnas.models.arch import SearchSpace
from kdnas.models.table import MEASURED, TableRow
from kdnas.page.style import (
    BLUE,
    EPISODES,
    GREY,
    HALO,
    RED,
    legend_entry,
    mark,
    mark_teacher,
    size_axes,
    style,
    text,
)

BAND = "rgba(86,180,233,0.25)"
# Ticks at 1, 2 and 5 of each decade with explicit labels: plotly would label 20 with a small 2.
TICKS = [float(f"{digit}e{decade}") for decade in range(-4, 5) for digit in (1, 2, 5)]
LOG_AXIS = {"type": "log", "tickvals": TICKS, "ticktext": [f"{tick:g}" for tick in TICKS]}


def label(row: TableRow) -> str:
    """Text of an architecture's hover box."""
    return (
        f"<b>{row.arch.name}</b><br>{row.latency_ms:.3f} ms ({row.low_ms:.3f} to {row.high_ms:.3f}), {text(row.source)}<br>"
        f"{row.parameters_millions:.2f} M parameters, {row.gflops:.2f} GFLOP"
    )


def rounded(values: Sequence[float]) -> list[float]:
    """Values with five significant digits: more precise than a figure can show, and it halves the page's size."""
    return [float(f"{value:.5g}") for value in values]


def error_scatter(points: Sequence[Mapping[str, Any]], bound_pct: float) -> go.Figure:
    """Table against exhaustive measurement of the held-out architectures, with the bound as a band.

    Args:
        points: rows with `arch`, `exhaustive_ms`, `table_ms`, `error_pct`.
        bound_pct: half the width of the band.
    """
    values = [point[name] for point in points for name in ("exhaustive_ms", "table_ms")]
    ends = [min(values) / 1.2, max(values) * 1.2]
    fraction = bound_pct / 100
    figure = go.Figure()
    band = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
    figure.add_scatter(x=ends, y=[end * (1 + fraction) for end in ends], **band)
    lower = {**band, "fill": "tonexty", "fillcolor": BAND, "name": f"± {bound_pct:g} %", "showlegend": True}
    figure.add_scatter(x=ends, y=[end * max(1 - fraction, 1e-3) for end in ends], **lower)
    figure.add_trace(diagonal(ends, "no error"))
    worst = max(points, key=lambda point: abs(point["error_pct"]))
    for name, picked, marker in (
        ("never fitted", points, {"size": 9, "color": BLUE, "opacity": 0.85, "line": {"width": 1, "color": HALO}}),
        ("largest error", [worst], {"size": 15, "color": RED, "symbol": "circle-open", "line": {"width": 2}}),
    ):
        figure.add_scatter(
            x=[point["exhaustive_ms"] for point in picked],
            y=[point["table_ms"] for point in picked],
            mode="markers",
            name=name,
            marker=marker,
            customdata=[[text(point["arch"]), point["error_pct"]] for point in picked],
            hovertemplate="<b>%{customdata[0]}</b><br>exhaustive %{x:.3f} ms<br>table %{y:.3f} ms<br>"
            "error %{customdata[1]:+.2f} %<extra></extra>",
        )
    style(figure, 460)
    log_axes(figure, "exhaustive measurement (ms)", "table (ms)")
    return figure


def diagonal(ends: Sequence[float], name: str) -> go.Scatter:
    """The line of equal values on both axes."""
    return go.Scatter(
        x=ends, y=ends, mode="lines", name=name, line={"color": GREY, "width": 1.5, "dash": "dot"}, hoverinfo="skip"
    )


def log_axes(figure: go.Figure, x: str, y: str) -> None:
    """Logarithmic axes with their titles."""
    figure.update_xaxes(**LOG_AXIS, title_text=x)
    figure.update_yaxes(**LOG_AXIS, title_text=y)


def depth_scatter(rows: Sequence[TableRow], x: Sequence[float], y: Sequence[float], hover: str) -> go.Figure:
    """All architectures, coloured by depth; measured ones have a ring and are drawn on top.

    Args:
        rows: N rows.
        x: N values.
        y: N values.
        hover: last line of the hover box, a plotly template of x and y, or empty.
    """
    figure = go.Figure()
    depths = sorted({row.layers for row in rows})
    colours = {depth: mark(index).colour for index, depth in enumerate(depths)}
    for measured in (False, True):
        for depth in depths:
            indices = [
                index for index, row in enumerate(rows) if row.layers == depth and (row.source == MEASURED) == measured
            ]
            figure.add_scatter(
                x=rounded([x[index] for index in indices]),
                y=rounded([y[index] for index in indices]),
                mode="markers",
                marker=ring(colours[depth]) if measured else {"size": 4, "color": colours[depth], "opacity": 0.45},
                legendgroup=str(depth),
                showlegend=False,
                text=[label(rows[index]) for index in indices],
                hovertemplate="%{text}" + hover + "<extra></extra>",
            )
    for depth in depths:
        figure.add_trace(legend_entry(f"{depth} layers", {"size": 9, "color": colours[depth]}, str(depth)))
    figure.add_trace(legend_entry("measured", ring(GREY)))
    figure.add_trace(legend_entry("predicted", {"size": 4, "color": GREY, "opacity": 0.7}))
    return style(figure, 500).update_layout(legend={"itemsizing": "trace"})


def ring(colour: str) -> dict[str, Any]:
    """Marker of a dot with a ring."""
    return {"symbol": "circle-open-dot", "size": 10, "color": colour, "line": {"width": 1.5}}


def size_scatter(rows: Sequence[TableRow], results: Mapping[str, Any]) -> go.Figure:
    """Latency against parameters, with the teacher as a cross."""
    figure = depth_scatter(rows, [row.parameters_millions for row in rows], [row.latency_ms for row in rows], "")
    mark_teacher(figure, results)
    size_axes(figure)
    return figure


def limit_scatter(rows: Sequence[TableRow], fractions: Sequence[float]) -> go.Figure:
    """Fraction of the physical limit that each architecture reaches, against its number of operations."""
    hover = "<br>%{y:.1%} of the limit"
    figure = depth_scatter(rows, [row.gflops for row in rows], fractions, hover)
    figure.add_hline(y=1, line={"color": GREY, "width": 1.5, "dash": "dot"})
    figure.update_xaxes(**LOG_AXIS, title_text="operations of the mean sentence (GFLOP)")
    figure.update_yaxes(title_text="fraction of the limit", tickformat=".0%", range=[0, 1.05 * max(1.0, *fractions)])
    return figure


def heat_map(rows: Sequence[TableRow], layers: int, heads: int, activation: str) -> go.Figure:
    """Latency over hidden and feed-forward width, with the other fields fixed; a bullet marks measured architectures.

    Args:
        rows: all 2400 rows, in order of id.
        layers: depth.
        heads: attention heads.
        activation: feed-forward activation.
    """
    space = SearchSpace()
    wanted = (layers, heads, activation)
    cells = {(row.hidden, row.ffn): row for row in rows if (row.layers, row.heads, row.activation) == wanted}
    figure = go.Figure(
        go.Heatmap(
            x=[str(ffn) for ffn in space.ffn],
            y=[str(hidden) for hidden in space.hidden],
            z=[[cells[hidden, ffn].latency_ms for ffn in space.ffn] for hidden in space.hidden],
            text=[
                [" •" if cells[hidden, ffn].source == MEASURED else "" for ffn in space.ffn] for hidden in space.hidden
            ],
            texttemplate="%{z:.3r}%{text}",
            colorscale=EPISODES,
            colorbar={"title": {"text": "ms", "font": {"size": 13}}, "thickness": 12, "outlinewidth": 0},
            xgap=2,
            ygap=2,
            hovertemplate="hidden %{y}, feed-forward %{x}<br>%{z:.3f} ms<extra></extra>",
        )
    )
    style(figure, 360)
    figure.update_xaxes(type="category", title_text="feed-forward width", showgrid=False)
    figure.update_yaxes(type="category", title_text="hidden width", showgrid=False)
    return figure


def engine_scatter(rows: Sequence[TableRow], others: Mapping[str, Sequence[TableRow]], name: str) -> go.Figure:
    """Latency of each architecture over its teacher's in this table, against the same ratio in other tables.

    Args:
        rows: rows of this table, in order of id.
        others: rows of each other table, by name.
        name: name of this table.
    """
    here = rounded([row.teacher_ratio for row in rows])
    everything = here + [row.teacher_ratio for other in others.values() for row in other]
    figure = go.Figure(diagonal([min(everything) / 1.1, max(everything) * 1.1], "same ratio"))
    for index, (other, found) in enumerate(others.items()):
        look = {"color": mark(index).colour, "symbol": mark(index).symbol}
        figure.add_scatter(
            x=here,
            y=rounded([row.teacher_ratio for row in found]),
            mode="markers",
            marker={"size": 4, "opacity": 0.45, **look},
            legendgroup=text(other),
            showlegend=False,
            text=[row.arch.name for row in rows],
            hovertemplate="<b>%{text}</b><br>"
            + text(name)
            + " %{x:.3f}<br>"
            + text(other)
            + " %{y:.3f}<extra></extra>",
        )
        figure.add_trace(legend_entry(text(other), {"size": 9, **look}, text(other)))
    style(figure, 480).update_layout(legend={"itemsizing": "trace"})
    log_axes(figure, f"latency over the teacher's, {text(name)}", "latency over the teacher's, the other table")
    return figure


def pareto(rows: Sequence[TableRow]) -> list[TableRow]:
    """The Pareto front of many layer parameters and low latency, fastest first; of equal rows only the first."""
    front: list[TableRow] = []
    for row in sorted(rows, key=lambda row: (row.latency_ms, -row.layer_parameters_millions)):
        if not front or row.layer_parameters_millions > front[-1].layer_parameters_millions:
            front.append(row)
    return front


def front_scatter(rows: Sequence[TableRow], front: Sequence[TableRow]) -> go.Figure:
    """Layer parameters against latency, with the Pareto front as steps."""
    figure = go.Figure()
    for name, picked, mode, marker in (
        ("all", rows, "markers", {"size": 4, "color": GREY, "opacity": 0.35}),
        ("Pareto set", front, "lines+markers", {"size": 8, "color": RED, "line": {"width": 1, "color": HALO}}),
    ):
        figure.add_scatter(
            x=rounded([row.latency_ms for row in picked]),
            y=rounded([row.layer_parameters_millions for row in picked]),
            mode=mode,
            name=name,
            marker=marker,
            line={"shape": "hv", "width": 2, "color": RED},
            text=[label(row) for row in picked],
            hovertemplate="%{text}<br>%{y:.2f} M of them in layers<extra></extra>",
        )
    style(figure, 460)
    log_axes(figure, "latency, batch 1 (ms)", "parameters of the layers (millions)")
    return figure
