"""The style of every plot: colours, layout, and traces that several pages use.

The colours are from Okabe and Ito's palette, which colour-blind readers can distinguish. Backgrounds are transparent, and the
page sets the colour of text and grid, so each plot is readable in light and dark mode.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import plotly.graph_objects as go

Record = dict[str, Any]  # a table row, by column name

HALO = "#ffffff"  # the page replaces this colour by its background
GREY, SKY, BLUE, GREEN, ORANGE, PINK, RED = (
    "#8a919c", "#56b4e9", "#0072b2", "#009e73", "#e69f00", "#cc79a7", "#d55e00",
)  # fmt: skip
COLOURS = (BLUE, ORANGE, GREEN, PINK, SKY, RED, GREY)
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "pentagon")
# Viridis without its ends, which are hard to see on black and on white.
EPISODES = [[0, "#5a74c8"], [0.35, "#2a95a0"], [0.7, "#4cbb6c"], [1, "#e0b92e"]]
TEACHER = {"symbol": "x", "size": 12, "color": GREY, "line": {"width": 1.5, "color": HALO}}
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'


@dataclass(frozen=True)
class Mark:
    """How one of several traces is drawn.

    Args:
        colour: colour as `#rrggbb`.
        dash: dash style of the line.
        symbol: symbol of the markers.
    """

    colour: str
    dash: str
    symbol: str

    def shade(self, opacity: float) -> str:
        """The colour with an opacity from 0 to 1, in plotly's notation."""
        red, green, blue = (int(self.colour[start : start + 2], 16) for start in (1, 3, 5))
        return f"rgba({red},{green},{blue},{opacity})"


def mark(index: int) -> Mark:
    """The mark of the trace with this index. The first 42 marks differ: colours vary first, then dashes and symbols."""
    cycle = index // len(COLOURS)
    return Mark(COLOURS[index % len(COLOURS)], DASHES[cycle % len(DASHES)], SYMBOLS[cycle % len(SYMBOLS)])


def style(figure: go.Figure, height: int = 430) -> go.Figure:
    """Apply the style of the pages to a plot: transparent, legend on top, margins that fit a phone."""
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
    """Escaped text for a hover box or label, because plotly interprets some HTML tags."""
    return escape(str(value))


def legend_entry(name: str, marker: Mapping[str, Any], group: str = "") -> go.Scatter:
    """A legend entry without points; clicking it hides the traces of its group."""
    return go.Scatter(x=[None], y=[None], mode="markers", marker=marker, name=name, legendgroup=group)


def mark_teacher(figure: go.Figure, results: Mapping[str, Any]) -> None:
    """Add the teacher of a latency table as a cross, if the table's results state its size and latency."""
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
    """Set the axis titles of a plot of latency against size."""
    figure.update_xaxes(title_text="parameters, embeddings included (millions)")
    figure.update_yaxes(title_text="latency, batch 1 (ms)", rangemode="tozero")


WINNER = {"symbol": "star", "size": 18, "color": RED, "line": {"width": 1.5, "color": HALO}}


def known(rows: Sequence[Record], *names: str) -> list[Record]:
    """The rows in which none of these fields is null or missing."""
    return [row for row in rows if all(row.get(name) is not None for name in names)]


def winner_trace(row: Record, x: str, y: str) -> go.Scatter:
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
