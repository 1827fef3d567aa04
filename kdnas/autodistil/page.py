"""The page of a family: its members as a curve of loss over latency, and a slider that names the `extract` command."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from kdnas.models.arch import Arch
from kdnas.page.style import HALO, mark, style, text
from kdnas.page.write import write_page
from kdnas.store.host import host_line

Row = Mapping[str, Any]


def write_family_page(
    page: Path,
    rows: Sequence[Row],
    teacher: str,
    corpus: str | None = None,
    retention: Mapping[str, float] | None = None,
) -> None:
    """Write one HTML file that needs no network.

    Args:
        page: the file.
        rows: rows of `family.csv`; latencies may be None.
        teacher: the teacher, as it was given.
        corpus: name of the corpus, if it is known.
        retention: scores of some members divided by the teacher's, by member.
    """
    retention = retention or {}
    timed = all(row["latency_ms"] is not None for row in rows)
    rows = [{**row, "retention": retention.get(row["member"])} for row in rows]
    figures = {"family": family_curve(rows, timed)}
    if retention:
        figures["retention"] = family_curve([row for row in rows if row["retention"] is not None], timed, "retention")
    write_page(
        page,
        "kdnas.autodistil",
        {
            "figures": {name: json.loads(figure.to_json()) for name, figure in figures.items()},
            "rows": [{**row, "name": Arch.parse(row["member"]).name} for row in rows],
            "affordable": affordable(rows) if timed else [],
            "timed": timed,
            "fitted": any(row["latency_source"] == "fitted" for row in rows),
            "explained": all(row["explained_variance"] is not None for row in rows),
            "teacher": teacher,
            "corpus": corpus,
            "host": host_line(),
        },
    )


def affordable(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Members for the slider: those with a lower loss than every faster one, fastest first."""
    kept: list[dict[str, Any]] = []
    for row in sorted(rows, key=lambda row: (row["latency_ms"], row["loss"])):
        if not kept or row["loss"] < kept[-1]["loss"]:
            kept.append({"arch": row["member"], **{name: row[name] for name in ("latency_ms", "loss", "retention")}})
    return kept


def family_curve(rows: Sequence[Row], timed: bool, value: str = "loss") -> go.Figure:
    """Held-out loss, or retention, over latency, or over the parameters of the layers without latencies; one line a depth."""
    column, title = (
        ("latency_ms", "latency, batch 1 (ms)")
        if timed
        else (
            "layer_parameters_millions",
            "parameters without embeddings (millions)",
        )
    )
    figure = go.Figure()
    for index, depth in enumerate(sorted({row["layers"] for row in rows})):
        points = sorted((row for row in rows if row["layers"] == depth), key=lambda row: row[column])
        drawn = mark(index)
        figure.add_scatter(
            x=[row[column] for row in points],
            y=[row[value] for row in points],
            mode="lines+markers",
            name=f"{depth} layers",
            line={"color": drawn.colour, "width": 1, "dash": drawn.dash},
            marker={"size": 9, "color": drawn.colour, "symbol": drawn.symbol, "line": {"width": 1, "color": HALO}},
            hovertext=[text(row["member"]) for row in points],
            hovertemplate="<b>%{hovertext}</b><br>%{x:.3f}, " + value + " %{y:.4f}<extra></extra>",
        )
    figure.update_xaxes(title_text=title, rangemode="tozero")
    figure.update_yaxes(title_text={"loss": "held-out loss", "retention": "score divided by the teacher's"}[value])
    return style(figure, 460)
