"""The report's search section: the budget slider, the comparison studies, and the page of a search alone."""

import csv
import json
import re
import runpy
from pathlib import Path

import pytest

from kdnas.errors import UsageError
from kdnas.pipeline.report import report, write_report
from kdnas.store.artifact import Artifact

from ..page_fixture import Page
from ..pipeline.report_fixture import WINNER, fake_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    return fake_run(tmp_path_factory.mktemp("run"))


def render(artifacts: dict[str, Artifact], folder: Path) -> Page:
    """Render the page and parse it."""
    write_report(artifacts, folder / "page.html")
    return Page((folder / "page.html").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_slider_offers_candidates_with_less_loss_than_all_faster_ones(run: dict[str, Artifact], tmp_path: Path) -> None:
    page = render(run, tmp_path)
    (source,) = re.findall(r'<script type="application/json" id="budget-rows">(.*?)</script>', page.source, re.S)
    rows = json.loads(source)["rows"]
    assert [row["latency_ms"] for row in rows] == sorted(row["latency_ms"] for row in rows)
    losses = [row["loss"] for row in rows]
    assert losses == sorted(losses, reverse=True)
    assert str(WINNER) in [row["arch"] for row in rows]
    assert {row["arch"] for row in rows} <= {row["arch"] for row in run["search"].results["pareto"]}


@pytest.mark.slow
def test_search_section_shows_the_studies(run: dict[str, Artifact], tmp_path: Path) -> None:
    words = render(run, tmp_path).within("search")
    assert re.search("6L-768H, DistilBERT *L6-H12-D768-F3072-gelu", words)
    words = words.replace("\u202f", " ")
    assert "from 60 000 tokens on" in words
    assert re.search(r"tokens *the long loss *glue/stsb *10 000 *0\.71 \[0\.61, 0\.76\] *0\.60 \[0\.50, 0\.65\]", words)
    assert re.search(r"60 000 *0\.87 \[0\.77, 0\.92\] *0\.69 \[0\.59, 0\.74\]", words)
    assert "losses of 40 candidates" in words


@pytest.mark.slow
def test_fidelity_plot_groups_by_heads(run: dict[str, Artifact], tmp_path: Path) -> None:
    with (run["fidelity"].path / "fidelity.csv").open(newline="") as lines:
        heads = [int(row["heads"]) for row in csv.DictReader(lines)]
    traces = render(run, tmp_path).figures["fidelity"]["data"]
    assert [trace["name"] for trace in traces if "name" in trace] == [f"{count} heads" for count in sorted(set(heads))]
    for count in set(heads):
        drawn = [trace for trace in traces if trace.get("legendgroup") == f"{count} heads" and "customdata" in trace]
        assert [len(trace["customdata"]) for trace in drawn] == [heads.count(count)] * 2  # the long loss and the task
        assert all(text.split(",")[1] == str(count) for trace in drawn for text in trace["customdata"])


def test_page_of_a_single_stage(run: dict[str, Artifact], tmp_path: Path) -> None:
    out = tmp_path / "search.html"
    report(run["search"].path, out, run["strategies"].path, run["fidelity"].path)
    page = Page(out.read_text())
    shown = {"search_scatter", "search_rewards", "effects", "regret", "hypervolume", "fidelity"}
    assert set(page.figures) == shown
    with pytest.raises(UsageError, match="fidelity"):
        report(run["search"].path, out, fidelity=run["strategies"].path)


def test_the_regret_plot_shows_every_strategy_of_the_table(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    study = root / "results" / "search"
    names = runpy.run_path(str(root / "docs" / "regret.py"))["draw"](study / "curves.csv", tmp_path / "regret.html")
    with (study / "strategies.csv").open(newline="") as lines:
        assert names == list(dict.fromkeys(row["strategy"] for row in csv.DictReader(lines)))
    page = (tmp_path / "regret.html").read_text()
    assert all(f'"name":"{name}"' in page for name in names)
