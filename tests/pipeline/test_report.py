"""The report page: its content, self-containment, escaping of hostile text, and rendering in a browser."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from kdnas.errors import UsageError
from kdnas.pipeline.report import STAGES, load_run, report, write_report
from kdnas.pipeline.summary import summarise
from kdnas.store.artifact import Artifact

from ..page_fixture import HOSTILE, Page, assert_fetches_nothing, browse, changed, drawn_chart
from .report_fixture import WINNER, fake_run, write_listing

pytestmark = pytest.mark.slow


SECTIONS = ("next", "search", "latency", "training", "evaluation", "speed", "export", "host")
CHARTS = (
    "search_scatter", "search_rewards", "effects", "regret", "hypervolume", "fidelity",
    "latency", "distill", "refine", "layers", "speed_latency", "speed_ratio"
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """A run with all stages, including HAP."""
    return fake_run(tmp_path_factory.mktemp("run"), hap=True)


def render(artifacts: dict[str, Artifact], folder: Path) -> Page:
    """Render the page and parse it."""
    out = folder / "page.html"
    write_report(artifacts, out)
    return Page(out.read_text(encoding="utf-8"))


def test_page_has_every_chart_and_section(run: dict[str, Artifact], tmp_path: Path) -> None:
    page = render(run, tmp_path)
    assert [attributes["id"] for tag, attributes in page.tags if tag == "section"] == list(SECTIONS)
    figures = page.figures
    assert sorted(figures) == sorted(CHARTS)
    captions = [tag for tag, _ in page.tags if tag == "figcaption"]
    assert len(captions) == len(CHARTS)
    assert "not measured" not in page.words
    assert page.source.count("Plotly.react(") == 1
    for name, figure in figures.items():
        axes = [axis for key, axis in figure["layout"].items() if re.fullmatch(r"[xy]axis\d*", key)]
        titles = " ".join(axis.get("title", {}).get("text", "") for axis in axes)
        assert titles.strip(), f"{name} has no axis title"
        if "latency" in titles:
            assert "(ms)" in titles


def test_numbers_match_the_artifacts(run: dict[str, Artifact], tmp_path: Path) -> None:
    page = render(run, tmp_path)
    header = page.text_of[""]
    for shown in (WINNER.name, "23.0×", "21.4× to 25.1×", "98.3\xa0%", "100.2\xa0%", "77.1\xa0%", "18.3\xa0MB"):
        assert shown in header
    results = run["latency-table"].results
    assert f"{results['measured']} architectures were measured" in page.within("latency")
    assert "this table2.3 %5.7 %" in page.within("latency")
    assert "2.4e-06" in page.within("export")
    assert len(re.findall(WINNER.name, page.within("search"))) == 2  # the text and the Pareto table
    figures = page.figures
    marks = [point for trace in figures["latency"]["data"] for point in trace.get("customdata", [])]
    assert len([mark for mark in marks if mark[1] in ("measured", "predicted")]) == 2400
    candidates = [trace for trace in figures["search_scatter"]["data"] if "coloraxis" in trace.get("marker", {})]
    assert sum(len(trace["x"]) for trace in candidates) == run["search"].results["candidates"]
    assert figures["layers"]["data"][0]["y"] == list(
        run["distill"].results["explained_variance_layers"].values()
    )  # distil first, as it was run


def test_retrieval_is_shown_or_its_absence_explained(run: dict[str, Artifact], tmp_path: Path) -> None:
    page = render(run, tmp_path)
    words = page.within("evaluation")
    assert "812 held-out sentences must find the sentence that follows them" in words
    for row in ("teacherteacher0.4321", "studentstudent0.401292.8", "studentteacher0.410795.0"):
        assert row in re.sub(r"\s", "", words)
    assert "92.8\xa0%" in page.text_of[""]  # a tile
    without_head = run["evaluation"].results["retrieval"] | {"asymmetric": None, "asymmetric_retention": None}
    words = render({**run, "evaluation": changed(run["evaluation"], retrieval=without_head)}, tmp_path).within(
        "evaluation"
    )
    assert "studentteacher" not in re.sub(r"\s", "", words)
    absent = changed(run["evaluation"], retrieval=None, retrieval_note="no retrieval: 3 pairs")
    words = render({**run, "evaluation": absent}, tmp_path).within("evaluation")
    assert "no retrieval: 3 pairs." in words
    assert "must find" not in words


def test_speedup_over_the_teacher_in_the_same_engine(run: dict[str, Artifact], tmp_path: Path) -> None:
    assert "same engine" not in render(run, tmp_path).within("speed")
    alike = {"same_engine_speedup": 4.4, "same_engine_speedup_low": 3.9, "same_engine_speedup_high": 4.6}
    rows = run["speed"].results["rows"]
    artifacts = {**run, "speed": changed(run["speed"], rows=[*rows[:-1], rows[-1] | alike])}
    words = render(artifacts, tmp_path).within("speed")
    assert "over the teacher in the same engine" in words
    assert "4.40× (3.90× to 4.60×)" in words
    assert "4.40 [3.90, 4.60] times the teacher's in the same engine" in summarise(artifacts)


def test_run_details_are_shown(run: dict[str, Artifact], tmp_path: Path) -> None:
    page = render(run, tmp_path)
    words = page.within("host")
    assert re.findall(r"(\w+) resumed", words) == ["distill", "A"]  # the fixture interrupts the distillation once
    host = run["search"].manifest["host"]
    assert host["cpu"] in words
    assert host["versions"]["numpy"] in words
    for artifact in run.values():
        assert str(artifact.path) in words
        assert artifact.manifest["key"] in words
    assert '"teacher": "builtin:minilm-l6"' in words


def test_stages_of_two_hosts_are_distinguished(run: dict[str, Artifact], tmp_path: Path) -> None:
    elsewhere = run["speed"].manifest | {"host": {**run["speed"].manifest["host"], "cpu": "Another CPU"}}
    page = render({**run, "speed": replace(run["speed"], manifest=elsewhere)}, tmp_path)
    assert "Another CPU" in page.within("host")
    assert run["search"].manifest["host"]["cpu"] in page.within("host")


def test_commits_of_one_host_are_listed_once(run: dict[str, Artifact], tmp_path: Path) -> None:
    other = run["speed"].manifest | {"host": {**run["speed"].manifest["host"], "commit": "abcdef123456+"}}
    page = render({**run, "speed": replace(run["speed"], manifest=other)}, tmp_path)
    words = page.within("host")
    assert words.count("instruction sets") == 1
    assert "abcdef123456+ with local changes (speed)" in words


def test_relation_losses_are_drawn_without_explained_variance(run: dict[str, Artifact], tmp_path: Path) -> None:
    page = render(run, tmp_path)
    figures = page.figures
    assert figures["distill"]["layout"]["yaxis2"]["title"]["text"] == "explained variance"
    assert figures["refine"]["layout"]["yaxis2"]["title"]["text"] == "validation loss"
    names = [trace["name"] for trace in figures["refine"]["data"]]
    assert names == ["training loss", "running mean", "validation loss", "KK", "QQ", "VV"]
    assert "explained variance" not in page.within("training").split("Refine: MiniLM-v2")[1].split("Above")[0]


def test_explained_variance_comes_from_the_last_stage_that_has_it(run: dict[str, Artifact], tmp_path: Path) -> None:
    page = render({name: run[name] for name in ("distill", "refine")}, tmp_path)
    assert "explained variance77.4\xa0%of the teacher's hidden states" in page.text_of[""]
    page = render(run, tmp_path)
    assert "explained variance77.1\xa0%of the teacher's last hidden states" in page.text_of[""]


def test_forms_are_sorted_from_the_teacher_to_the_fastest(run: dict[str, Artifact], tmp_path: Path) -> None:
    rows = run["speed"].results["rows"]
    mixed = [rows[4], rows[1], rows[0], rows[3], rows[2]]
    page = render({**run, "speed": changed(run["speed"], rows=mixed)}, tmp_path)
    bars = page.figures["speed_ratio"]["data"][0]
    assert bars["x"] == [row["speedup"] for row in rows]
    assert "openvino-int8 is 20.7× as fast as the teacher (19.8× to 21.9×)" in page.within("speed")


def test_languages_are_listed_from_the_lowest_explained_variance(run: dict[str, Artifact], tmp_path: Path) -> None:
    words = render(run, tmp_path).within("evaluation")
    assert words.index("sw62.0 %50.0 %500") < words.index("en81.0 %70.0 %1")
    of_one = changed(run["evaluation"], languages={})
    assert "By language" not in render({**run, "evaluation": of_one}, tmp_path).within("evaluation")


def test_page_loads_nothing_from_the_network(run: dict[str, Artifact], tmp_path: Path) -> None:
    page = render(run, tmp_path)
    assert_fetches_nothing(page, links="https://arxiv.org/abs/")


def test_next_commands_have_the_real_paths(run: dict[str, Artifact], tmp_path: Path) -> None:
    page = render(run, tmp_path)
    words = page.within("next")
    assert f"kdnas export --model {run['evaluation'].path}/classifiers/hap" in words
    assert f"kdnas serve --model {run['export'].path}" in words
    assert f"AutoModel.from_pretrained('{run['refine'].path}/student')" in words
    odd = replace(run["export"], path=Path("my models/export"))
    page = render({**run, "classifier": odd}, tmp_path)
    assert "kdnas filter --model 'my models/export' --input docs.jsonl --output filtered" in page.within("next")
    assert "--label" not in page.within("next")


def test_a_topic_filter_names_its_label(run: dict[str, Artifact], tmp_path: Path) -> None:
    without = changed(run["evaluation"], hap=None, hap_note="no HAP set was given")
    page = render({**run, "evaluation": without}, tmp_path)
    assert "/classifiers/topic" in page.within("next")
    assert "--output filtered --label numpy" in page.within("next")
    assert "HAP: no HAP set was given" in page.within("evaluation")
    assert "kdnas pipeline --hap PATH" in page.within("evaluation")
    assert "HAP retention" not in page.words


@pytest.mark.parametrize("stage", STAGES)
def test_a_missing_stage_names_its_command(run: dict[str, Artifact], tmp_path: Path, stage: str) -> None:
    page = render({name: artifact for name, artifact in run.items() if name != stage}, tmp_path)
    assert page.words.count("Not in this run.") == 1
    assert f"Not in this run. {STAGES[stage]} makes" in page.words


def test_page_of_an_empty_run(tmp_path: Path) -> None:
    page = render({}, tmp_path)
    assert page.words.count("Not in this run.") == len(STAGES)
    assert "No student yet" in page.words
    assert "kdnas pipeline" in page.within("next")


def test_null_is_shown_as_not_measured(run: dict[str, Artifact], tmp_path: Path) -> None:
    rows = [{**row, "speedup_low": None, "p90_ms": None} for row in run["speed"].results["rows"]]
    topic = {**run["evaluation"].results["topic"], "retention": None, "teacher": None}
    blank = {
        **run,
        "speed": changed(run["speed"], rows=rows),
        "evaluation": changed(run["evaluation"], topic=topic, recall_at_10=None),
        "refine": changed(run["refine"], tokens_per_second=None, explained_variance_layers=None),
        "search": changed(run["search"], winner_reward=None, pareto=[]),
        "latency-table": changed(run["latency-table"], teacher_latency_ms=None, held_out={}),
    }
    page = render(blank, tmp_path)
    assert page.within("speed").count("not measured") == 2 * len(rows)
    assert "and not measured of the teacher's ten nearest" in page.within("evaluation")
    assert "at not measured tokens/s" in page.within("training")
    for zero in (" 0.000", " 0.0 ", "None", "nan", "Undefined", "null"):
        assert zero not in page.words
    assert "NaN" not in "".join(re.findall(r'class="figure"[^>]*>(.*?)</script>', page.source, re.S))


def test_hostile_text_is_escaped(run: dict[str, Artifact], tmp_path: Path) -> None:
    page = render(run, tmp_path)
    attacked = render(hostile(run, tmp_path), tmp_path)
    scripts = [[tag for tag, _ in read.tags].count("script") for read in (attacked, page)]
    assert scripts[0] == scripts[1] - 1  # an invalid architecture has no effects
    assert "img" not in [tag for tag, _ in attacked.tags]
    assert HOSTILE not in attacked.source
    assert "document.title='owned'" in attacked.words  # still there, as text
    assert set(page.figures) - set(attacked.figures) == {"effects"}


def hostile(run: dict[str, Artifact], folder: Path) -> dict[str, Artifact]:
    """A run in which every free text tries to run a script."""
    rows = [{**row, "name": f"{row['name']} {HOSTILE}"} for row in run["speed"].results["rows"]]
    topic = {**run["evaluation"].results["topic"], "metric": HOSTILE, "labels": [HOSTILE], "splits": HOSTILE}
    search = folder / "search"
    search.mkdir()
    journal = [json.loads(line) for line in (run["search"].path / "journal.jsonl").read_text().splitlines()]
    (search / "journal.jsonl").write_text("".join(json.dumps({**row, "arch": HOSTILE}) + "\n" for row in journal))
    winner = replace(changed(run["search"], winner=HOSTILE), path=search)
    manifest = {**run["export"].manifest, "config": {HOSTILE: HOSTILE}, "host": {"cpu": HOSTILE}}
    return {
        **run,
        "speed": changed(run["speed"], rows=rows),
        "evaluation": changed(run["evaluation"], topic=topic, hap=None, hap_note=HOSTILE),
        "search": winner,
        "distill": changed(run["distill"], explained_variance_layers={HOSTILE: 0.5}),
        "export": replace(run["export"], manifest=manifest),
    }


def test_architectures_stored_as_fields_are_read(run: dict[str, Artifact], tmp_path: Path) -> None:
    fields = {"layers": 4, "heads": 12, "hidden": 384, "ffn": 1024, "activation": "gelu"}
    page = render({"refine": changed(run["refine"], arch=fields)}, tmp_path)
    assert WINNER.name in page.words


@pytest.mark.parametrize("name", ["search/journal.jsonl", "latency-table/table.csv", "refine/history.jsonl"])
def test_a_missing_file_is_reported(tmp_path: Path, name: str, run: dict[str, Artifact]) -> None:
    stage, file = name.split("/")
    copy = tmp_path / stage
    shutil.copytree(run[stage].path, copy)
    (copy / file).unlink()
    with pytest.raises(UsageError, match=re.escape(str(copy / file))):
        write_report({**run, stage: replace(run[stage], path=copy)}, tmp_path / "page.html")
    (copy / file).write_text("not,a\nlog or,table\n")
    with pytest.raises(UsageError, match="build it again"):
        write_report({**run, stage: replace(run[stage], path=copy)}, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_report_command(run: dict[str, Artifact], tmp_path: Path) -> None:
    write_listing(tmp_path / "run", {**run, "classifier": run["export"]})
    assert report(tmp_path / "run", tmp_path / "new" / "page.html").path == tmp_path / "new" / "page.html"
    assert WINNER.name in (tmp_path / "new" / "page.html").read_text()
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["page.html", "page.md"]


def test_listing_may_be_relative_to_the_run(run: dict[str, Artifact], tmp_path: Path) -> None:
    shutil.copytree(run["speed"].path, tmp_path / "run" / "speed")
    (tmp_path / "run" / "artifacts.json").write_text('{"speed": "speed"}')
    assert load_run(tmp_path / "run")["speed"].results == run["speed"].results


@pytest.mark.parametrize(
    ("listing", "message"),
    [
        (None, "give the folder that `kdnas pipeline` wrote"),
        ("{", "cannot read it"),
        ("[]", "an object of stage to artifact folder"),
        ('{"speed": 3}', "an object of stage to artifact folder"),
        ('{"sped": "x"}', "names none of the stages latency-table"),
        ('{"speed": "nowhere"}', "no finished artifact here"),
        (b"\xff\xfe", "cannot read it"),
    ],
)
def test_invalid_listing_is_rejected(tmp_path: Path, listing: str | bytes | None, message: str) -> None:
    if listing is not None:
        (tmp_path / "artifacts.json").write_bytes(listing.encode() if isinstance(listing, str) else listing)
    with pytest.raises(UsageError, match=message):
        load_run(tmp_path)


def test_an_artifact_of_another_kind_is_rejected(run: dict[str, Artifact], tmp_path: Path) -> None:
    write_listing(tmp_path, {"speed": run["export"]})
    with pytest.raises(UsageError, match="'export' artifact, a 'speed' is needed"):
        load_run(tmp_path)


def test_out_must_be_a_folder(run: dict[str, Artifact], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder; give a file name"):
        write_report(run, tmp_path)


def test_installed_command_reports_bad_input_without_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "kdnas.cli", "report", "--run", str(tmp_path), "--out", str(tmp_path / "r.html")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "artifacts.json" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_browser_draws_every_chart(run: dict[str, Artifact], tmp_path: Path) -> None:
    write_report(run, tmp_path / "page.html")
    document, console = browse(tmp_path / "page.html", tmp_path)
    assert console == []
    assert re.search(r'id="budget-arch"[^>]*>[^<]+ times as fast as the teacher</p>', document)
    for name in CHARTS:
        part = drawn_chart(document, name)
        assert part.count('class="js-line"') + part.count('class="point') > 0, name


def test_a_browser_runs_no_hostile_text(run: dict[str, Artifact], tmp_path: Path) -> None:
    write_report(hostile(run, tmp_path), tmp_path / "page.html")
    document, console = browse(tmp_path / "page.html", tmp_path)
    assert console == []
    assert "<title>owned" not in document
    assert document.count("main-svg") >= len(CHARTS) - 1
