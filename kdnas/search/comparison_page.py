"""The page of a strategy comparison: how fast each strategy approaches the best reward, and how much of the front it finds."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdnas.page.write import write_page
from kdnas.search.figures import strategy_bands
from kdnas.store.host import host_line


def write_comparison_page(page: Path, curves: Path, results: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Write one HTML file that needs no network.

    Args:
        page: file to write.
        curves: CSV with the percentiles of all strategies.
        results: of the manifest.
        options: fields of `ComparisonOptions`.
    """
    figures = {name: json.loads(figure.to_json()) for name, figure in strategy_bands(curves).items()}
    values = {"figures": figures, "results": results, "options": options, "host": host_line()}
    write_page(page, "kdnas.search", values)
