"""The latency table's page: what it says, that it is whole, that text cannot break out of it."""

import csv
import json
import random
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdnas.arch import SearchSpace, arch_id
from kdnas.artifact import Artifact, build, write_json
from kdnas.errors import UsageError
from latency.protocol import held_out
from latency.report import latency_report, look, write_latency_report
from latency.report_figures import depth_scatter, error_scatter, pareto
from latency.table import Row, read_rows, write_rows

TEACHER_MS = 21.4
SECTIONS = ("accuracy", "size", "shape", "engines", "front", "limit", "host")
CHARTS = ("errors", "size", "heat", "engines", "front", "limit")
LENGTHS = {"values": [8, 16, 24, 32, 64], "counts": [1000, 3000, 3000, 2000, 1000], "strata": [12, 24, 48]}
ROOFLINE = {
    "gflops": 118.0, "gflops_by_tokens": {"16": 90.0, "128": 118.0}, "bandwidth_gbs": 14.0, "cache_gbs": 60.0,
    "bytes_per_weight": 4.0, "cache_bytes": 2**25,
}  # fmt: skip
HOSTILE = "<img src=x onerror=\"document.title='owned'\"></script><script>document.title='owned'</script>"
VOID = {"meta", "br", "link", "img", "input", "hr"}


def fake_rows(draw: random.Random, noise: float) -> list[Row]:
    """Latencies that rise with depth and width."""
    rows = []
    for arch in SearchSpace():
        took = 0.35 + arch.layers * (0.22 + 1.25e-6 * arch.hidden * (2 * arch.hidden + arch.ffn)) * draw.gauss(1, noise)
        size = arch.layer_parameters / 1e6
        measured = draw.random() < 0.06
        rows.append(
            Row(
                id=arch_id(arch),
                layers=arch.layers,
                heads=arch.heads,
                hidden=arch.hidden,
                ffn=arch.ffn,
                activation=arch.activation,
                parameters_millions=size + 0.0305 * arch.hidden,
                layer_parameters_millions=size,
                gflops=arch.flops(25) / 1e9,
                latency_ms=took,
                low_ms=took * 0.97,
                high_ms=took * 1.03,
                p50_ms=took * 0.97,
                p90_ms=took * 1.3,
                p99_ms=took * 1.9,
                teacher_ratio=took / TEACHER_MS,
                relative_sd=0.015,
                source="measured" if measured else "predicted",
                samples=12 if measured else 0,
            )
        )
    return rows


def fake_table(home: Path, engine: str = "pytorch-f32", noise: float = 0.03, **results: Any) -> Artifact:
    """A latency table that never was."""
    rows = fake_rows(random.Random(engine), noise)
    measured = sum(row.source == "measured" for row in rows)
    baselines = {name: {"median_abs_pct": 9.0, "p90_abs_pct": 27.0} for name in ("flops", "layer-sum")}
    figures = {
        "engine": engine, "threads": 2, "sentences": 10000, "teacher_latency_ms": TEACHER_MS, "teacher_p50_ms": 20.1,
        "teacher_p90_ms": 29.8, "teacher_parameters_millions": 22.57, "measured": measured,
        "predicted": 2400 - measured, "windows_discarded": 7, "windows_readmitted": 0, "processes": 3, "minutes": 10.0,
        "held_out": {"median_abs_pct": 2.3, "p90_abs_pct": 5.7, "max_abs_pct": 9.4, "baselines": baselines},
    } | results  # fmt: skip

    def work(folder: Path) -> dict[str, Any]:
        write_rows(folder / "table.csv", rows)
        write_json(folder / "lengths.json", LENGTHS)
        return figures

    options = {"engine": engine, "minutes": 10.0, "threads": 2, "seed": 0, "tolerance": 0.2, "max_architectures": None}
    return build(
        home, "latency-table", "teacher", {"options": options}, {"teacher": "t" * 64, "corpus": "c" * 64}, work
    )


def fake_validation(home: Path, table: Artifact, sentences: int = 200) -> Artifact:
    """A validation of it."""
    draw = random.Random(sentences)
    rows = {row.id: row for row in read_rows(table.path / "table.csv")}

    def work(folder: Path) -> dict[str, Any]:
        errors = []
        with (folder / "validation.csv").open("w", newline="") as file:
            out = csv.writer(file)
            out.writerow(["arch", "exhaustive_ms", "table_ms", "error_pct", "repeat_pct"])
            for arch in held_out():
                says = rows[arch_id(arch)].latency_ms
                truth = says * draw.gauss(1, 0.02)
                errors.append(100 * (says / truth - 1))
                out.writerow([str(arch), truth, says, errors[-1], 0.4])
        return {
            "engine": table.results["engine"], "sentences": sentences, "runs": 3, "seconds": 900.0,
            "bound_pct": round(max(map(abs, errors)), 2), "median_abs_pct": 1.31, "kendall_tau": 0.981,
            "repeatability_pct": 1.7, "repeatability_median_pct": 0.5, "repeatability_tau": 0.99,
            "sampling_error_pct": 0.4, "exhaustive_hours": 312.0, "table_minutes": 10.0, "times_cheaper": 1872.0,
        }  # fmt: skip

    return build(home, "latency-validation", "teacher", {"sentences": sentences}, {"latency-table": table.digest}, work)


class Page(HTMLParser):
    """Reads a page strictly: every element is closed in order."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.section = ""
        self.text_of: dict[str, str] = {}
        self.feed(source)
        self.close()
        assert self.open == []
        found = re.findall(r'class="figure" data-target="chart-(\w+)">(.*?)</script>', source, re.S)
        self.figures = {name: json.loads(figure) for name, figure in found}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "section":
            self.section = dict(attrs)["id"] or ""
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"
        if tag == "section":
            self.section = ""

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text_of[self.section] = self.text_of.get(self.section, "") + data

    def within(self, section: str) -> str:
        """Visible text of a section; of what lies outside all where it is empty."""
        return " ".join(self.text_of[section].split())


def render(folder: Path, table: Artifact, *, validations: Any = (), others: Any = ()) -> Page:
    """The page's reading."""
    return Page(write_latency_report(table, folder / "page.html", validations, others).read_text(encoding="utf-8"))


def changed(artifact: Artifact, **results: Any) -> Artifact:
    """The artifact with other results."""
    return replace(artifact, manifest={**artifact.manifest, "results": {**artifact.results, **results}})


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


def test_whole_page(table: Artifact, validation: Artifact, other: Artifact, tmp_path: Path) -> None:
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


def test_figures_are_those_of_the_artifacts(
    table: Artifact, validation: Artifact, other: Artifact, tmp_path: Path
) -> None:
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
    page = render(tmp_path, table)
    for tag, attributes in page.tags:
        for name in ("src", "href", "srcset", "action", "poster", "data"):
            value = attributes.get(name) or ""
            assert value == "" or value.startswith("#"), f"<{tag} {name}={value}>"
    source = (tmp_path / "page.html").read_text()
    style = re.findall(r"<style>(.*?)</style>", source, re.S)[0]
    assert "url(" not in style
    assert "@import" not in style
    policy = [row["content"] for tag, row in page.tags if tag == "meta" and "http-equiv" in row]
    assert policy[0] is not None
    assert policy[0].startswith("default-src 'none'")


def test_what_is_missing_says_how_to_get_it(table: Artifact, tmp_path: Path) -> None:
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
    assert "it states no peaks of its host. python -m latency.roofline pytorch-f32 2 measures" in limit


def test_shares_above_the_limit_are_said(table: Artifact, tmp_path: Path) -> None:
    assert "above the limit" not in render(tmp_path, table).within("limit")
    slow = {**ROOFLINE, "gflops": 40.0}
    words = render(tmp_path, changed(table, roofline=slow)).within("limit")
    assert "are above the limit: a peak was measured too low" in words


def test_tables_of_another_form_are_left_out_and_named(table: Artifact, other: Artifact, tmp_path: Path) -> None:
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "table.csv").write_text("id,latency_ms\n0,1.0\n")
    page = render(tmp_path, table, others=[replace(other, path=folder), other])
    assert f"Left out: {folder / 'table.csv'}: columns are" in page.within("engines")
    assert page.within("engines").count("openvino-int8, 2 threads") == 1


def test_a_foreign_validation_is_refused(
    table: Artifact, other: Artifact, validation: Artifact, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="is no validation of"):
        write_latency_report(other, tmp_path / "page.html", [validation])
    with pytest.raises(UsageError, match="a latency table is needed"):
        write_latency_report(validation, tmp_path / "page.html")
    with pytest.raises(UsageError, match="is a folder"):
        write_latency_report(table, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["latency-table", "latency-validation"])
def test_a_damaged_table_is_named(table: Artifact, validation: Artifact, tmp_path: Path, kind: str) -> None:
    artifacts = {"latency-table": table, "latency-validation": validation}
    name = {"latency-table": "table.csv", "latency-validation": "validation.csv"}[kind]
    (tmp_path / name).write_text("arch\nx\n")
    artifacts[kind] = replace(artifacts[kind], path=tmp_path)
    with pytest.raises(UsageError, match=name):
        write_latency_report(artifacts["latency-table"], tmp_path / "page.html", [artifacts["latency-validation"]])
    assert not (tmp_path / "page.html").exists()


def test_a_limit_that_cannot_be_worked_out_says_why(table: Artifact, tmp_path: Path) -> None:
    page = render(tmp_path, changed(table, roofline={"gflops": 118.0, "bandwidth_gbs": 14.0}))
    assert "Not in this table: peaks {'gflops': 118.0" in page.within("limit")
    assert "limit" not in page.figures
    (tmp_path / "table.csv").write_bytes((table.path / "table.csv").read_bytes())
    page = render(tmp_path, replace(table, path=tmp_path))
    assert f"{tmp_path / 'lengths.json'}: cannot read it" in page.within("limit")


def test_hostile_text_stays_text(table: Artifact, other: Artifact, tmp_path: Path) -> None:
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
    assert "document.title='owned'" in page.within("")  # still there, as text
    names = json.dumps(page.figures["engines"])
    assert "<img" not in names
    assert "&lt;img" in names


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
    latency_report(table.path, home=root)
    streams = capsys.readouterr()
    assert streams.out.splitlines()[-1] == "latency-report.html"
    assert "left out" in streams.out + streams.err
    page = Page(Path("latency-report.html").read_text())
    assert str(validation.path) in page.within("host")
    assert str(foreign.path) not in page.within("host")
    assert page.within("engines").count(str(other.path)) == 1
    assert str(table.path) not in page.within("engines")
    latency_report(table.path, Path("new") / "page.html", root)
    assert capsys.readouterr().out.splitlines()[-1] == "new/page.html"
    with pytest.raises(UsageError, match="a 'latency-table' is needed"):
        latency_report(validation.path, home=root)


def test_pareto_set_is_what_no_other_beats(table: Artifact) -> None:
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


def test_a_table_that_measured_nothing_draws(table: Artifact) -> None:
    rows = [replace(row, source="predicted") for row in read_rows(table.path / "table.csv")]
    figure = depth_scatter(rows, [row.gflops for row in rows], [row.latency_ms for row in rows], "")
    assert sum(len(trace.text or ()) for trace in figure.data) == 2400


def test_look_is_the_pipelines() -> None:
    assert "prefers-color-scheme: dark" in look()["style"]
    assert "<" not in look()["style"]
    assert "Plotly.react" in look()["script"]
    assert "</script" not in look()["script"]


def test_a_browser_draws_every_chart_and_follows_the_menus(
    table: Artifact, validation: Artifact, other: Artifact, tmp_path: Path
) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on PATH (Debian: apt install chromium): the page is not drawn in this run")
    page = write_latency_report(table, tmp_path / "page.html", [validation], [other])
    probe = """<script>
      [3, 1, 2].forEach((choice, place) => { menus[place].value = choice; menus[place].dispatchEvent(new Event("change")); });
      document.getElementById("theme").click();  // painting anew keeps the choice
      document.title = JSON.stringify(document.getElementById("chart-heat").data[0].z);
    </script></body>"""
    page.write_text(page.read_text(encoding="utf-8").replace("</body>", probe), encoding="utf-8")
    switches = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
        "--disable-sync", "--no-first-run", f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=10000",
        "--enable-logging=stderr", "--window-size=1400,1000", "--dump-dom",
    ]  # fmt: skip
    done = subprocess.run([browser, *switches, page.as_uri()], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert [line for line in done.stderr.splitlines() if ":CONSOLE" in line] == []
    for name in CHARTS:
        part = done.stdout.partition(f'id="chart-{name}"')[2].partition("<figcaption>")[0]
        assert "main-svg" in part, f"{name} was not drawn"
    shown = json.loads(re.findall(r"<title>(.*?)</title>", done.stdout)[0])
    rows = [
        row for row in read_rows(table.path / "table.csv") if (row.layers, row.heads, row.activation) == (10, 3, "silu")
    ]
    latencies = {(row.hidden, row.ffn): row.latency_ms for row in rows}
    space = SearchSpace()
    expected = [[latencies[hidden, ffn] for ffn in space.ffn] for hidden in space.hidden]
    assert np.array(shown) == pytest.approx(np.array(expected), rel=1e-4)
