"""The page of strategies side by side: how fast each comes near the best, and how much of the front it finds."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdnas.page.write import write_page
from kdnas.search.figures import strategy_bands
from kdnas.store.host import host_line

if TYPE_CHECKING:
    from kdnas.search.contest import ContestOptions


def write_contest_page(page: Path, curves: Path, results: Mapping[str, Any], options: "ContestOptions") -> None:
    """Write one HTML file that needs no network.

    Args:
        page: where.
        curves: CSV of all strategies' percentiles.
        results: figures of the manifest.
        options: who was compared.
    """
    figures = {name: json.loads(figure.to_json()) for name, figure in strategy_bands(curves).items()}
    values = {"figures": figures, "results": results, "options": options, "host": host_line()}
    write_page(page, "kdnas.search", values)
