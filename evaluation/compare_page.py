"""The page of models side by side: the tables, and what is kept against how much faster it is."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from evaluation.compare_tables import Model, Table, retention
from kdnas.environment import host_line
from kdnas.report_page import look, require_file_name, write_page
from kdnas.report_style import BLUE, GREY, HALO, style, text


def write_suites_page(models: Sequence[Model], tables: Sequence[Table], paper: Mapping[str, Any], page: Path) -> Path:
    """Write one HTML file that needs no network; returns it.

    Raises:
        UsageError: `page` is a folder.
    """
    require_file_name(page, "suites.html")
    figure = json.loads(speed_scatter(models, paper).to_json())
    names = ", ".join(model.name for model in models)
    write_page(
        page,
        "evaluation",
        {**look(), "tables": tables, "figures": {"speed": figure}, "names": names, "host": host_line()},
    )
    return page


def speed_scatter(models: Sequence[Model], paper: Mapping[str, Any]) -> go.Figure:
    """Mean retention against latency speed-up: ours where a latency table was given, and the paper's models."""
    figure = go.Figure()
    theirs = [
        (
            name,
            paper["cpu_ms"]["Teacher"] / paper["cpu_ms"][name],
            100 * row["average"] / paper["suites"]["Teacher"]["average"],
        )
        for name, row in paper["suites"].items()
    ]
    ours = [
        (model.name, model.speed_up, 100 * kept)
        for model in models
        if model.speed_up and (kept := retention(models[0], model)) is not None
    ]
    for group, points, colour in (("the paper, PyTorch on 4 cores", theirs, GREY), ("here", ours, BLUE)):
        points = sorted(
            points, key=lambda point: point[1]
        )  # names above and below in turn, so that neighbours' do not overlap
        figure.add_scatter(
            x=[point[1] for point in points],
            y=[point[2] for point in points],
            text=[text(point[0]) for point in points],
            mode="markers+text",
            textposition=[f"{('top', 'bottom')[place % 2]} center" for place in range(len(points))],
            marker={"size": 11, "color": colour, "line": {"width": 1, "color": HALO}},
            name=group,
            hovertemplate="%{text}<br>%{x:.1f} times as fast<br>%{y:.1f} % kept<extra></extra>",
        )
    figure.update_xaxes(title_text="times as fast as its teacher at batch 1", rangemode="tozero")
    figure.update_yaxes(title_text="mean retention (%)")
    return style(figure, 460)
