"""The report of a latency table: its content, its completeness, and escaping of text."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdnas.errors import UsageError
from kdnas.latency.report import latency_report, write_latency_report
from kdnas.latency.report_figures import depth_scatter, error_scatter, pareto
from kdnas.models.arch import SearchSpace
from kdnas.models.table import read_rows
from kdnas.store.artifact import Artifact

from ..page_fixture import HOSTILE, Page, assert_fetches_nothing, browse, changed, drawn_chart
from .report_fixture import ROOFLINE, fake_table, fake_validation

SECTIONS = ("accuracy", "size", "shape", "engines", "front", "limit", "host")
CHARTS = ("errors", "size", "heat", "engines", "front", "limit")


def render(folder: Path, table: Artifact, *, validations: Any = (), others: Any = ()) -> Page:
    """Parses the page."""
    return Page(write_latency_report(table, folder / "page.html", validations, others).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def table(root: Path) -> Artifact:
    return fake_table(root, roofline=ROOFLINE)


@pytest.fixture(scope="module")
def validation(root: Path, table: Artifact) -> Artifact:
    return fake_validation(root, table)


@pytest.fixture(scope="module")
def other(root: Path) -> Artifact:
    return fake_table(root, "openvino-int8", noise=0.2)


def test_complete_page(table: Artifact, validation: Artifact, other: Artifact, tmp_path: Path) -> None:
    page = render(tmp_path, table, validations=[validation], others=[other])
    assert [attributes["id"] for tag, attributes in page.tags if tag == "section"] == list(SECTIONS)
    assert sorted(page.figures) == sorted(CHARTS)
    assert [tag for tag, _ in page.tags].count("figcaption") == len(CHARTS)
    for figure in page.figures.values():
        assert figure["layout"]["xaxis"]["title"]["text"]
        assert figure["layout"]["yaxis"]["title"]["text"]
    header = page.within("")
    for shown in ("pytorch-f32", "2 threads", "10.0 min", "312 hours", table.manifest["host"]["cpu"]):
        assert shown in header.replace("\xa0", " ")
    assert f"within {validation.results['bound_pct']:.1f}\xa0%" in page.text_of[""]
    everything = " ".join(page.text_of.values())
    for wrong in ("not measured", "Not validated", "None", "nan", "Undefined", "{{"):
        assert wrong not in everything


def test_values_match_the_artifacts(table: Artifact, validation: Artifact, other: Artifact, tmp_path: Path) -> None:
    figures = render(tmp_path, table, validations=[validation], others=[other]).figures
    rows = read_rows(table.path / "table.csv")
    for name in ("size", "limit"):
        shown = [label for trace in figures[name]["data"] for label in trace.get("text", [])]
        assert len(shown) == 2400
        rings = [trace for trace in figures[name]["data"] if trace["marker"].get("symbol") == "circle-open-dot"]
        assert sum(len(trace.get("text", [])) for trace in rings) == table.results["measured"]
    assert len(figures["errors"]["data"][3]["x"]) == 59
    worst = figures["errors"]["data"][4]["customdata"][0][1]
    assert abs(worst) == pytest.approx(validation.results["bound_pct"], abs=0.01)
    heat = {
        (row.hidden, row.ffn): row.latency_ms
        for row in rows
        if (row.layers, row.heads, row.activation) == (6, 12, "gelu")
    }
    assert figures["heat"]["data"][0]["z"][2][4] == heat[576, 1024]
    engines = [trace for trace in figures["engines"]["data"] if len(trace["x"]) == 2400]
    assert engines[0]["y"][7] == pytest.approx(read_rows(other.path / "table.csv")[7].teacher_ratio, rel=1e-3)


def test_menus_reach_every_architecture(table: Artifact, tmp_path: Path) -> None:
    source = write_latency_report(table, tmp_path / "page.html").read_text()
    found = re.search(r'id="heat-values">(.*?)</script>', source, re.S)
    assert found is not None
    values = json.loads(found[1])
    rows = read_rows(table.path / "table.csv")
    assert values["latency_ms"] == [pytest.approx(row.latency_ms, rel=1e-4) for row in rows]
    assert values["measured"] == [row.id for row in rows if row.source == "measured"]
    space = SearchSpace()
    assert values["sizes"] == [5, 5, 4, 8, 3]
    menus = re.findall(r'<select data-menu="(\w+)">(.*?)</select>', source, re.S)
    for name, options in menus:
        assert re.findall(r">(\w+)</option>", options) == [str(value) for value in getattr(space, name)]
        assert options.count(" selected") == 1
    assert [name for name, _ in menus] == ["layers", "heads", "activation"]  # drawHeat reads them in this order


def test_nothing_is_fetched(table: Artifact, tmp_path: Path) -> None:
    assert_fetches_nothing(render(tmp_path, table))


def test_a_missing_part_states_the_command_that_makes_it(table: Artifact, tmp_path: Path) -> None:
    page = render(tmp_path, changed(table, roofline=None))
    assert sorted(page.figures) == ["front", "heat", "size"]
    accuracy = page.within("accuracy")
    assert "Not validated." in accuracy
    command = (
        "kdnas latency-table --engine pytorch-f32 --minutes 10.0 --threads 2 --seed 0 --tolerance 0.2 --validate true"
    )
    assert command in accuracy
    assert "not measured" in page.within("")
    assert "No other table. kdnas latency-table --engine ENGINE makes one" in page.within("engines")
    limit = page.within("limit")
    assert "it has no peaks of its host. python -m kdnas.latency.roofline pytorch-f32 2 measures" in limit


def test_the_fixed_cost_of_a_call_is_part_of_the_limit(table: Artifact, tmp_path: Path) -> None:
    assert "fixed cost" not in render(tmp_path, table).within("limit")  # a table of an earlier version
    words = render(tmp_path, changed(table, roofline={**ROOFLINE, "call_ms": 0.042})).within("limit")
    assert "plus the fixed cost of a call, 42.0 µs: that of one with products of one token and 64 dimensions" in words


def test_fractions_above_the_limit_are_reported(table: Artifact, tmp_path: Path) -> None:
    assert "above the limit" not in render(tmp_path, table).within("limit")
    slow = {**ROOFLINE, "gflops": 40.0}
    words = render(tmp_path, changed(table, roofline=slow)).within("limit")
    assert "are above the limit: a peak was measured too low" in words


def test_unreadable_tables_are_left_out_and_reported(table: Artifact, other: Artifact, tmp_path: Path) -> None:
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "table.csv").write_text("id,latency_ms\n0,1.0\n")
    page = render(tmp_path, table, others=[replace(other, path=folder), other])
    assert f"Left out: {folder / 'table.csv'}: columns are" in page.within("engines")
    assert page.within("engines").count("openvino-int8, 2 threads") == 1


def test_a_validation_of_another_table_is_refused(
    table: Artifact, other: Artifact, validation: Artifact, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="not a validation of"):
        write_latency_report(other, tmp_path / "page.html", [validation])
    with pytest.raises(UsageError, match="a latency table is needed"):
        write_latency_report(validation, tmp_path / "page.html")
    with pytest.raises(UsageError, match="is a folder"):
        write_latency_report(table, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["latency-table", "latency-validation"])
def test_a_damaged_table_is_reported(table: Artifact, validation: Artifact, tmp_path: Path, kind: str) -> None:
    artifacts = {"latency-table": table, "latency-validation": validation}
    name = {"latency-table": "table.csv", "latency-validation": "validation.csv"}[kind]
    (tmp_path / name).write_text("arch\nx\n")
    artifacts[kind] = replace(artifacts[kind], path=tmp_path)
    with pytest.raises(UsageError, match=name):
        write_latency_report(artifacts["latency-table"], tmp_path / "page.html", [artifacts["latency-validation"]])
    assert not (tmp_path / "page.html").exists()


def test_a_limit_that_cannot_be_computed_states_the_reason(table: Artifact, tmp_path: Path) -> None:
    page = render(tmp_path, changed(table, roofline={"gflops": 118.0, "bandwidth_gbs": 14.0}))
    assert "Not in this table: peaks {'gflops': 118.0" in page.within("limit")
    assert "limit" not in page.figures
    (tmp_path / "table.csv").write_bytes((table.path / "table.csv").read_bytes())
    page = render(tmp_path, replace(table, path=tmp_path))
    assert f"{tmp_path / 'lengths.json'}: cannot read it" in page.within("limit")


@pytest.mark.slow
def test_hostile_text_is_escaped(table: Artifact, other: Artifact, tmp_path: Path) -> None:
    clean = render(tmp_path, table, others=[other])
    manifest: Mapping[str, Any] = {
        **table.manifest,
        "config": {"options": {"engine": HOSTILE}},
        "host": {"cpu": HOSTILE},
    }
    attacked = changed(replace(table, manifest=dict(manifest)), engine=HOSTILE)
    page = render(tmp_path, attacked, others=[changed(other, engine=HOSTILE)])
    source = (tmp_path / "page.html").read_text()
    assert HOSTILE not in source
    assert "img" not in [tag for tag, _ in page.tags]
    assert [tag for tag, _ in page.tags].count("script") == [tag for tag, _ in clean.tags].count("script")
    assert "document.title='owned'" in page.within("")  # still present, as text
    names = json.dumps(page.figures["engines"])
    assert "<img" not in names
    assert "&lt;img" in names


@pytest.mark.slow
def test_command(
    root: Path, table: Artifact, validation: Artifact, other: Artifact, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (root / "latency-table" / "unfinished").mkdir(exist_ok=True)
    damaged = root / "latency-validation" / "damaged"
    damaged.mkdir()
    (damaged / "manifest.json").write_text("{")
    foreign = fake_validation(root, other)
    monkeypatch.chdir(tmp_path)
    assert latency_report(table.path, home=root).path == Path("latency-report.html")
    assert "left out" in capsys.readouterr().err
    page = Page(Path("latency-report.html").read_text())
    assert str(validation.path) in page.within("host")
    assert str(foreign.path) not in page.within("host")
    assert page.within("engines").count(str(other.path)) == 1
    assert str(table.path) not in page.within("engines")
    assert latency_report(table.path, Path("new") / "page.html", root).path == Path("new/page.html")
    with pytest.raises(UsageError, match="a 'latency-table' is needed"):
        latency_report(validation.path, home=root)


def test_pareto_set_is_not_dominated(table: Artifact) -> None:
    rows = read_rows(table.path / "table.csv")
    front = pareto(rows)
    chosen = {row.id for row in front}
    assert [row.latency_ms for row in front] == sorted(row.latency_ms for row in front)
    for row in rows:
        beaten = any(
            best.latency_ms <= row.latency_ms
            and best.layer_parameters_millions >= row.layer_parameters_millions
            and (best.latency_ms < row.latency_ms or best.layer_parameters_millions > row.layer_parameters_millions)
            for best in front
        )
        assert beaten != (row.id in chosen)


def test_band_has_the_width_of_the_bound() -> None:
    point = {"arch": "a", "exhaustive_ms": 2.0, "table_ms": 2.1, "error_pct": 5.0}
    upper, lower = error_scatter([point], 5.0).data[:2]
    assert [y / x for x, y in zip(upper.x, upper.y, strict=True)] == [pytest.approx(1.05)] * 2
    assert [y / x for x, y in zip(lower.x, lower.y, strict=True)] == [pytest.approx(0.95)] * 2


def test_a_table_without_measurements_can_be_drawn(table: Artifact) -> None:
    rows = [replace(row, source="predicted") for row in read_rows(table.path / "table.csv")]
    figure = depth_scatter(rows, [row.gflops for row in rows], [row.latency_ms for row in rows], "")
    assert sum(len(trace.text or ()) for trace in figure.data) == 2400


@pytest.mark.slow
def test_a_browser_draws_every_chart_and_follows_the_menus(
    table: Artifact, validation: Artifact, other: Artifact, tmp_path: Path
) -> None:
    page = write_latency_report(table, tmp_path / "page.html", [validation], [other])
    probe = """<script>
      [3, 1, 2].forEach((choice, index) => { menus[index].value = choice; menus[index].dispatchEvent(new Event("change")); });
      document.getElementById("theme").click();  // repainting keeps the choice
      document.title = JSON.stringify(document.getElementById("chart-heat").data[0].z);
    </script></body>"""
    page.write_text(page.read_text(encoding="utf-8").replace("</body>", probe), encoding="utf-8")
    document, console = browse(page, tmp_path)
    assert console == []
    for name in CHARTS:
        drawn_chart(document, name)
    shown = json.loads(re.findall(r"<title>(.*?)</title>", document)[0])
    rows = [
        row for row in read_rows(table.path / "table.csv") if (row.layers, row.heads, row.activation) == (10, 3, "silu")
    ]
    latencies = {(row.hidden, row.ffn): row.latency_ms for row in rows}
    space = SearchSpace()
    expected = [[latencies[hidden, ffn] for ffn in space.ffn] for hidden in space.hidden]
    assert np.array(shown) == pytest.approx(np.array(expected), rel=1e-4)
