"""The page that compares models: the tables, and a plot of retention against speed-up."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go

from kdnas.evaluation.compare_models import Model, retention
from kdnas.evaluation.compare_tables import PAPER_LEAVES_OUT, Table
from kdnas.page.style import HALO, mark, style, text
from kdnas.page.write import require_file_name, write_page
from kdnas.store.host import host_line

LABEL_WIDTH = 0.1  # of the plot


def write_suites_page(
    models: Sequence[Model], tables: Sequence[Table], paper: Mapping[str, Any], page: Path, different: bool = False
) -> Path:
    """Write one HTML file that needs no network, and return its path.

    Args:
        models: the compared models.
        tables: tables of the page.
        paper: the paper's results.
        page: the file.
        different: whether the models have different settings, which the first table lists.

    Raises:
        UsageError: `page` is a folder.
    """
    require_file_name(page, "suites.html")
    figure = json.loads(speed_scatter(models, paper).to_json())
    names = ", ".join(model.name for model in models)
    write_page(
        page,
        "kdnas.evaluation",
        {
            "tables": tables,
            "figures": {"speed": figure},
            "names": names,
            "host": host_line(),
            "different": different,
        },
    )
    return page


def speed_scatter(models: Sequence[Model], paper: Mapping[str, Any]) -> go.Figure:
    """Mean retention against latency speed-up, by engine, for the timed models and the paper's models.

    CoLA is left out, because the paper leaves it out of its means.
    """
    whole = paper["suites"]["Teacher"]["average"]
    groups = {
        "the paper, PyTorch on 4 cores": [
            (name, (paper["cpu_ms"]["Teacher"] / paper["cpu_ms"][name],) * 3, 100 * row["average"] / whole)
            for name, row in paper["suites"].items()
        ]
    }
    for model in models:
        kept = retention(models[0], model, PAPER_LEAVES_OUT)
        if kept is None:
            continue
        for engine, times in model.speed_ups.items():
            groups.setdefault(engine, []).append((model.name, times, 100 * kept))
    fastest: dict[str, tuple[float, float, float]] = {}  # only the fastest form of a model is labelled with its name
    for points in groups.values():
        fastest |= {name: max(times, fastest.get(name, times)) for name, times, _ in points}
    everything = [(times[0], kept) for points in groups.values() for _, times, kept in points]
    figure = go.Figure()
    for index, (group, points) in enumerate(groups.items()):
        drawn = mark(index)
        heights = label_sides([(times[0], kept) for _, times, kept in points], everything)
        figure.add_scatter(
            x=[times[0] for _, times, _ in points],
            y=[kept for _, _, kept in points],
            error_x={
                "array": [high - middle for _, (middle, _, high), _ in points],
                "arrayminus": [middle - low for _, (middle, low, _), _ in points],
                "thickness": 1,
            },
            text=[text(name) if fastest[name] == times else "" for name, times, _ in points],
            hovertext=[text(name) for name, _, _ in points],
            mode="markers+text",
            textposition=[f"{height} center" for height in heights],
            marker={"size": 11, "color": drawn.colour, "symbol": drawn.symbol, "line": {"width": 1, "color": HALO}},
            name=text(group),
            hovertemplate="%{hovertext}<br>%{x:.1f} times as fast<br>%{y:.1f} % retained<extra></extra>",
        )
    figure.update_xaxes(title_text="times as fast as its teacher in PyTorch at batch 1", rangemode="tozero")
    figure.update_yaxes(title_text="mean retention (%)")
    return style(figure, 460)


def label_sides(points: Sequence[tuple[float, float]], everything: Sequence[tuple[float, float]]) -> list[str]:
    """`top` or `bottom` for the label of each point (x, y): away from the closest point within a label's width."""
    width = LABEL_WIDTH * np.ptp([x for x, _ in everything])
    sides = []
    for x, y in points:
        near = [other for other in everything if other != (x, y) and abs(other[0] - x) <= width]
        sides.append("bottom" if near and min(near, key=lambda other: abs(other[1] - y))[1] > y else "top")
    return sides
