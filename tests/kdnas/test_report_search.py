"""What the report shows of a search: the slider, the studies beside it, and the page of a search alone."""

import json
import re
from pathlib import Path

import pytest

from kdnas.artifact import Artifact
from kdnas.errors import UsageError
from kdnas.report import report, write_report

from ..page_fixture import Page
from .report_fixture import WINNER, fake_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    return fake_run(tmp_path_factory.mktemp("run"))


def render(artifacts: dict[str, Artifact], folder: Path) -> Page:
    """The page's reading."""
    write_report(artifacts, folder / "page.html")
    return Page((folder / "page.html").read_text(encoding="utf-8"))


def test_the_slider_offers_what_loses_less_than_all_faster_ones(run: dict[str, Artifact], tmp_path: Path) -> None:
    page = render(run, tmp_path)
    (source,) = re.findall(r'<script type="application/json" id="budget-rows">(.*?)</script>', page.source, re.S)
    rows = json.loads(source)["rows"]
    assert [row["latency_ms"] for row in rows] == sorted(row["latency_ms"] for row in rows)
    losses = [row["loss"] for row in rows]
    assert losses == sorted(losses, reverse=True)
    assert str(WINNER) in [row["arch"] for row in rows]
    assert {row["arch"] for row in rows} <= {row["arch"] for row in run["search"].results["pareto"]}


def test_what_else_the_search_section_shows(run: dict[str, Artifact], tmp_path: Path) -> None:
    words = render(run, tmp_path).within("search")
    assert re.search("6L-768H, DistilBERT *L6-H12-D768-F3072-gelu", words)
    words = words.replace("\u202f", " ")
    assert "from 60 000 tokens on it is good enough" in words
    assert re.search("60 000 *the long loss *0.87 *0.77 to 0.92", words)


def test_one_stage_and_what_is_added_to_it(run: dict[str, Artifact], tmp_path: Path) -> None:
    out = tmp_path / "search.html"
    report(run["search"].path, out, run["strategies"].path, run["fidelity"].path)
    page = Page(out.read_text())
    shown = {"search_scatter", "search_rewards", "effects", "regret", "hypervolume", "fidelity"}
    assert set(page.figures) == shown
    with pytest.raises(UsageError, match="fidelity"):
        report(run["search"].path, out, fidelity=run["strategies"].path)
