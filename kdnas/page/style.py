"""The look of every figure: colours, layout, and the marks that more than one page draws.

Colours are from Okabe and Ito's palette, which colour-blind readers can tell apart; backgrounds are transparent and the
page sets the colour of text and grid, so that each figure reads in light and in dark.
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go

Row = dict[str, Any]  # of a table, by the names of its columns

HALO = "#ffffff"  # the page paints this one in its own background
GREY, SKY, BLUE, GREEN, ORANGE, PINK, RED = (
    "#8a919c", "#56b4e9", "#0072b2", "#009e73", "#e69f00", "#cc79a7", "#d55e00",
)  # fmt: skip
DEPTH_COLOURS = (SKY, BLUE, GREEN, PINK, ORANGE)
# Viridis without its ends, which vanish on black and on white.
EPISODES = [[0, "#5a74c8"], [0.35, "#2a95a0"], [0.7, "#4cbb6c"], [1, "#e0b92e"]]
TEACHER = {"symbol": "x", "size": 12, "color": GREY, "line": {"width": 1.5, "color": HALO}}
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'


def style(figure: go.Figure, height: int = 430) -> go.Figure:
    """Give a figure the look of the page: transparent, legend on top, margins that fit a phone."""
    figure.update_layout(
        template="none",
        height=height,
        font={"family": FONT, "size": 13, "color": GREY},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 56, "r": 12, "t": 12, "b": 48},
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "bgcolor": "rgba(0,0,0,0)"},
        hoverlabel={"align": "left"},
        hovermode="closest",
        bargap=0.35,
    )
    axis = {
        "gridcolor": "rgba(138,145,156,0.25)",
        "zeroline": False,
        "automargin": True,
        "title": {"standoff": 10, "font": {"size": 13}},
    }
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    return figure


def text(value: Any) -> str:
    """Text for a hover box or label: plotly reads a few HTML tags, so what comes from files is escaped."""
    return escape(str(value))


def legend_entry(name: str, marker: Mapping[str, Any], group: str = "") -> go.Scatter:
    """A line of the legend without points of its own; clicking it hides what shares its group."""
    return go.Scatter(x=[None], y=[None], mode="markers", marker=marker, name=name, legendgroup=group)


def mark_teacher(figure: go.Figure, results: Mapping[str, Any]) -> None:
    """Add the teacher of a latency table as a cross, where the table's figures state its size and latency."""
    if results.get("teacher_parameters_millions") is not None and results.get("teacher_latency_ms") is not None:
        figure.add_scatter(
            x=[results["teacher_parameters_millions"]],
            y=[results["teacher_latency_ms"]],
            mode="markers",
            name="teacher",
            marker=TEACHER,
            hovertemplate="<b>teacher</b><br>%{x:.2f} M parameters<br>%{y:.3f} ms<extra></extra>",
        )


def size_axes(figure: go.Figure) -> None:
    """Titles of the axes where latency is drawn against size."""
    figure.update_xaxes(title_text="parameters, embeddings included (millions)")
    figure.update_yaxes(title_text="latency, batch 1 (ms)", rangemode="tozero")


WINNER = {"symbol": "star", "size": 18, "color": RED, "line": {"width": 1.5, "color": HALO}}


def known(rows: Sequence[Row], *names: str) -> list[Row]:
    """The rows in which none of these fields is null or missing."""
    return [row for row in rows if all(row.get(name) is not None for name in names)]


def winner_trace(row: Row, x: str, y: str) -> go.Scatter:
    """The winner as a star."""
    return go.Scatter(
        x=[row[x]],
        y=[row[y]],
        mode="markers",
        name="winner",
        marker=WINNER,
        customdata=[[text(row["arch"]), row["latency_ms"]]],
        hovertemplate="<b>winner %{customdata[0]}</b><br>latency %{customdata[1]:.3f} ms<extra></extra>",
    )
