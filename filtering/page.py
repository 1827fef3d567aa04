"""The page of a filter run: scores, thresholds, a sample of the drops, reasons and throughput."""

import json
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from kdnas.store.host import host_line

NAME = "report.html"


def filter_page(config: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """The page of a run; one HTML file that needs no network.

    Args:
        config: settings of the run.
        results: its totals.
    """
    from kdnas.page.write import page_text

    values = {
        "figures": figures(config, results),
        "config": config,
        "results": results,
        "host": host_line(),
        "languages": sorted(results["languages"].items(), key=lambda row: -row[1][0]),
    }
    return page_text("kdnas.filtering", values)


def dropped_fractions(counts: list[int]) -> list[float]:
    """Fraction of the documents whose score reaches each threshold 0, 1/n, ..., 1, from a histogram of n bins (n + 1,)."""
    reached = np.concatenate([np.cumsum(counts[::-1])[::-1], [0]])
    return [round(float(value), 6) for value in reached / max(1, sum(counts))]


def figures(config: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, Any]:
    """The charts as plotly's JSON: histogram of the scores, and the dropped fraction by threshold, each by label."""
    import plotly.graph_objects as go

    from kdnas.page.style import GREY, mark, style

    histogram, threshold = go.Figure(), go.Figure()
    for index, (label, counts) in enumerate(results["scores"].items()):
        edges = [round(number / len(counts), 4) for number in range(len(counts) + 1)]
        colour = mark(index).colour
        middles = [round((a + b) / 2, 4) for a, b in pairwise(edges)]
        histogram.add_bar(x=middles, y=counts, name=label, marker={"color": colour}, opacity=0.75)
        threshold.add_scatter(
            x=edges,
            y=[100 * one for one in dropped_fractions(counts)],
            name=label,
            mode="lines",
            line={"color": colour},
        )
        at = config["threshold"][index]
        for figure in (histogram, threshold) if at is not None else ():
            figure.add_vline(x=at, line={"color": colour, "dash": "dot", "width": 1.5})
    histogram.update_layout(barmode="overlay", bargap=0.0)
    for figure, title, kind in ((histogram, "documents", "log"), (threshold, "documents at or above it (%)", "linear")):
        style(figure, 380)
        figure.update_layout(showlegend=True, font={"color": GREY})
        figure.update_xaxes(title="score of the document" if figure is histogram else "threshold", range=[0, 1])
        figure.update_yaxes(title=title, type=kind)
    return {name: json.loads(figure.to_json()) for name, figure in (("scores", histogram), ("threshold", threshold))}
