"""The page of a comparison: the tables, and the front of score against milliseconds."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from kdnas.latency.peers.results import OURS, Record, front, ratio_text
from kdnas.latency.report_figures import LOG_AXIS
from kdnas.page.style import HALO, RED, mark, style, text
from kdnas.page.write import write_page
from kdnas.store.host import host_line


def write_peers_page(page: Path, results: Mapping[str, Any], lengths: Sequence[str]) -> None:
    """Write one HTML file that needs no network.

    Args:
        page: file to write.
        results: of the manifest.
        lengths: the fixed lengths in tokens.
    """
    rows: list[Record] = results["rows"]
    figures = {}
    if any(row["stsb_spearman"] is not None for row in rows):
        figures["front"] = json.loads(score_scatter(rows).to_json())
    ratios = [{"name": row["name"], **{key: ratio_text(row, key) for key in _keys(lengths)}} for row in rows]
    values = {"results": results, "figures": figures, "ratios": ratios, "lengths": lengths, "host": host_line()}
    write_page(page, "kdnas.latency.peers", values)


def _keys(lengths: Sequence[str]) -> list[str]:
    return [f"{kind}_{name}" for kind in ("text", "ids") for name in ("mix", *lengths)]


def score_scatter(rows: Sequence[Record]) -> go.Figure:
    """Spearman's correlation on STS-B against milliseconds from text at batch 1, with the front as steps."""
    figure = go.Figure()
    best = front(rows)
    figure.add_scatter(
        x=[row["text_mix_ms"] for row in best],
        y=[row["stsb_spearman"] for row in best],
        mode="lines",
        name="front",
        line={"shape": "hv", "width": 2, "color": RED},
        hoverinfo="skip",
    )
    groups: dict[str, list[Record]] = {"this project": [], "other libraries, the same model": [], "other models": []}
    for row in (row for row in rows if row["stsb_spearman"] is not None):
        ours = "this project" if row["name"].startswith(OURS) else "other libraries, the same model"
        groups[ours if row["same_model"] else "other models"].append(row)
    for index, (group, points) in enumerate(groups.items()):
        drawn = mark(index)
        figure.add_scatter(
            x=[row["text_mix_ms"] for row in points],
            y=[row["stsb_spearman"] for row in points],
            mode="markers",
            name=group,
            marker={"size": 11, "color": drawn.colour, "symbol": drawn.symbol, "line": {"width": 1, "color": HALO}},
            text=[text(row["name"]) for row in points],
            hovertemplate="<b>%{text}</b><br>%{x:.3f} ms<br>STS-B %{y:.2f}<extra></extra>",
        )
    figure.update_xaxes(**LOG_AXIS, title_text="milliseconds from text to vector, one text at a time")
    figure.update_yaxes(title_text="STS-B, Spearman (%)")
    return style(figure, 460)
