"""The plot of a study of strategies: mean regret over the schedule, without and with the hint."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from kdnas.page.style import mark, style

INK, PAPER = "#1f2933", "white"


def study_figure(rows: Sequence[Mapping[str, Any]]) -> go.Figure:
    """Regret over the schedule: means over teachers, limits and runs, shaded by their 95 % intervals.

    Args:
        rows: of `curves.csv`: strategy, hint, metric, schedule, mean, low and high.
    """
    regret = [row for row in rows if row["metric"] == "regret"]
    names = list(dict.fromkeys(row["strategy"] for row in regret))
    hints = [hint for hint in (False, True) if any(row["hint"] is hint for row in regret)]
    titles = ["with the hint" if hint else "without the hint" for hint in hints]
    figure = make_subplots(rows=1, cols=len(hints), shared_yaxes=True, subplot_titles=titles, horizontal_spacing=0.03)
    shown: set[str] = set()
    for column, hint in enumerate(hints, start=1):
        for index, name in enumerate(names):
            found = [row for row in regret if (row["strategy"], row["hint"]) == (name, hint)]
            if found:
                for trace in _band(name, index, found, name not in shown):
                    figure.add_trace(trace, row=1, col=column)
                shown.add(name)
        figure.update_xaxes(title_text="part of the schedule (%)", row=1, col=column)
    style(figure, 460).update_layout(
        margin={"t": 90}, legend={"y": 1.12}, font_color=INK, paper_bgcolor=PAPER, plot_bgcolor=PAPER
    )
    # Before a tenth of the schedule the strategies have seen too few results.
    top = max((100 * row["high"] for row in regret if row["schedule"] >= 0.1), default=1.0)
    figure.update_yaxes(range=[0, 1.05 * top])
    figure.update_yaxes(title_text="below the best reward (%)", row=1, col=1)
    return figure


def _band(name: str, index: int, rows: Sequence[Mapping[str, Any]], legend: bool) -> list[go.Scatter]:
    """The shaded interval and the line of one strategy."""
    drawn, steps = mark(index), [100 * row["schedule"] for row in rows]
    low, middle, high = ([100 * row[which] for row in rows] for which in ("low", "mean", "high"))
    shade = go.Scatter(
        x=[*steps, *steps[::-1]],
        y=[*high, *low[::-1]],
        fill="toself",
        fillcolor=drawn.shade(0.1),
        line={"width": 0},
        hoverinfo="skip",
        showlegend=False,
        legendgroup=name,
    )
    line = go.Scatter(
        x=steps,
        y=middle,
        mode="lines",
        name=name,
        legendgroup=name,
        showlegend=legend,
        line={"color": drawn.colour, "dash": drawn.dash, "width": 2},
        hovertemplate=f"{name}, %{{x:.0f}} %: %{{y:.2f}} %<extra></extra>",
    )
    return [shade, line]
