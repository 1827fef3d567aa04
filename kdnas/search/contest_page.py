"""The page of strategies side by side: how fast each comes near the best, and how much of the front it finds."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

from kdnas.environment import host_line
from kdnas.report_page import look, write_page
from kdnas.report_style import BLUE, GREEN, GREY, ORANGE, PINK, RED, SKY, style

if TYPE_CHECKING:
    from kdnas.search.contest import ContestOptions, Curves

COLOURS = (ORANGE, BLUE, GREY, GREEN, SKY, PINK, RED)


def write_contest_page(
    page: Path, curves: Mapping[str, "Curves"], results: Mapping[str, Any], options: "ContestOptions"
) -> None:
    """Write one HTML file that needs no network.

    Args:
        page: where.
        curves: of each strategy.
        results: figures of the manifest.
        options: who was compared.
    """
    regret = bands({name: 100 * found.regret for name, found in curves.items()}, "below the best reward (%)")
    early = min(found.regret.shape[1] for found in curves.values()) // 20  # before it no strategy knows anything
    top = max(float(np.percentile(100 * found.regret[:, early], 95)) for found in curves.values())
    regret.update_yaxes(range=[0, top])
    volume = bands({name: 100 * found.hypervolume for name, found in curves.items()}, "of the best front (%)")
    figures = {name: json.loads(figure.to_json()) for name, figure in (("regret", regret), ("hypervolume", volume))}
    values = {"figures": figures, "results": results, "options": options, "host": host_line()}
    write_page(page, "kdnas.search", {**look(), **values})


def bands(curves: Mapping[str, np.ndarray], title: str) -> go.Figure:
    """Medians over seeds of (runs, evaluations) as lines, from the 5th to the 95th percentile shaded."""
    figure = go.Figure()
    for (name, values), colour in zip(curves.items(), COLOURS, strict=False):
        steps = np.arange(1, values.shape[1] + 1)
        low, middle, high = np.percentile(values, (5, 50, 95), axis=0)
        red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
        figure.add_scatter(
            x=[*steps, *steps[::-1]],
            y=[*high, *low[::-1]],
            fill="toself",
            fillcolor=f"rgba({red},{green},{blue},0.12)",
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
            line={"color": colour, "width": 2},
            hovertemplate=f"{name}, %{{x}} evaluations: %{{y:.2f}} %<extra></extra>",
        )
    figure.update_xaxes(title_text="architectures evaluated")
    figure.update_yaxes(title_text=title)
    return style(figure, 460)
