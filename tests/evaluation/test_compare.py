"""Comparing models: means, retention and refusals, on made-up results."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from kdnas.errors import UsageError
from kdnas.evaluation.compare import PAPER, compare_suites, of_rounds, of_table
from kdnas.evaluation.compare_models import Cell, Model, mean_above_chance, retention, tuning_speed_up
from kdnas.evaluation.compare_page import label_sides, speed_scatter
from kdnas.evaluation.compare_results import read_model
from kdnas.evaluation.compare_settings import check_settings
from kdnas.evaluation.compare_tables import markdown, tables_of
from kdnas.evaluation.harness import RESULT
from kdnas.models.arch import Arch
from kdnas.models.teacher import Teacher
from kdnas.store.artifact import build
from kdnas.store.json_files import write_json

from ..latency.table_fixture import TEACHER_MS, law_ms, law_rows, table_artifact

GLUE = ("glue/sst2", "glue/cola", "glue/rte")
WHOLE = (*GLUE, "glue/mnli", "glue/qqp", "glue/qnli", "glue/stsb", "glue/mrpc")


def cell(*scores: float, seconds: float = 10.0, **settings: str) -> Cell:
    return Cell(scores, "accuracy", {}, seconds, (), {name: (value,) for name, value in settings.items()})


def test_retention_is_the_mean_ratio_over_shared_tasks() -> None:
    teacher = Model("t", "", {"glue/sst2": cell(80.0, 90.0), "glue/rte": cell(60.0), "glue/cola": cell(0.0)})
    student = Model(
        "s", "", {"glue/sst2": cell(68.0), "glue/rte": cell(54.0, seconds=2.0), "glue/cola": cell(5.0), "x": cell(1.0)}
    )
    assert retention(teacher, student) == pytest.approx((68 / 85 + 54 / 60) / 2)
    assert tuning_speed_up(teacher, student) == pytest.approx(30 / 22)
    assert retention(teacher, Model("n", "", {})) is None


def test_retention_without_cola_has_a_separate_row() -> None:
    teacher = Model("t", "", {"glue/sst2": cell(80.0), "glue/cola": cell(30.0)}, "", {"onnx": (2.0, 1.9, 2.1)})
    student = Model("s", "", {"glue/sst2": cell(76.0), "glue/cola": cell(15.0)}, "", {"onnx": (4.0, 3.9, 4.1)})
    paper = json.loads(PAPER.read_text())
    rows = {row[0]: row[1:] for row in tables_of([teacher, student], paper)[0].rows}
    assert rows["mean retention"] == ["100.0 %", "72.5 %"]
    assert rows["mean retention without glue/cola, as in the paper"] == ["100.0 %", "95.0 %"]
    drawn = {trace.name: trace for trace in speed_scatter([teacher, student], paper).data}
    assert sorted(drawn["onnx"].y) == pytest.approx([95.0, 100.0])  # without CoLA, like the paper's
    assert not any("without" in name for name in _names([Model("t", "", {"glue/sst2": cell(80.0)})]))


def _names(models: list[Model]) -> list[str]:
    return [row[0] for row in tables_of(models, json.loads(PAPER.read_text()))[0].rows]


def test_the_tables_show_our_models_and_the_paper_s() -> None:
    paper = json.loads(PAPER.read_text())
    teacher = Model("MiniLM", "", {task: cell(80.0 + index, 82.0 + index) for index, task in enumerate(WHOLE)})
    student = Model(
        "small", "", {"glue/sst2": cell(72.9)}, "", {"onnx": (7.25, 6.5, 8.0), "latency table": (3.0, 3.0, 3.0)}
    )
    text = markdown(tables_of([teacher, student], paper))
    assert "| glue/sst2, accuracy | 81.0 ± 1.4 | 72.9 (90.0 %) |" in text
    assert "| onnx, times as fast |  | 7.25 [6.50, 8.00] |\n| latency table, times as fast |  | 3.00 |" in text
    suites = text.split("## Suites")[1].split("##")[0]
    assert "| MiniLM | 84.9 |" in suites  # (81 + 83 + 84 + 85 + 86 + 87 + 88) / 7: CoLA, 82, does not count
    assert "| small |" not in suites  # a model with one of seven tasks has no mean of GLUE
    assert "| paper: Teacher | 84.8 | 77.3 | 94.2 | 70.9 | 78.1 | 76.1 | 84.8 |" in suites
    glue = text.split("## GLUE")[1]
    assert "| small |  |  |  | 72.9 |  |  |  |  | 72.9 |" in glue
    assert "| paper: KDNASArch3 | 76.5 | 84.1 | 84.5 | 88.1 | 18.6 | 82.0 | 82.4 | 59.1 | 88.1 |" in glue
    assert "the mean of glue/sst2, which all rows have" in glue
    assert "Table 8" not in text


def test_the_paper_s_averages_agree_with_its_scores() -> None:
    # The paper averages unrounded scores; the means of its printed scores agree to a tenth.
    paper = json.loads(PAPER.read_text())
    for name, row in paper["suites"].items():
        values = [value for suite, value in row.items() if suite != "average"]
        assert sum(values) / 6 == pytest.approx(row["average"], abs=0.11), name


def test_different_settings_are_refused_or_named_with_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    equal = {"epochs": "3", "seeds": "0, 1"}
    models = [
        Model("A", "", {task: cell(2.0, **equal) for task in GLUE}),
        Model(
            "B",
            "",
            {task: cell(1.0, **(equal | {"epochs": "1"})) for task in GLUE[:2]} | {"x/x": cell(1.0, epochs="7")},
        ),
    ]
    with pytest.raises(
        UsageError, match=r"epochs: A 3, B 1 \(glue/sst2, glue/cola\)\n.*--allow-different-settings true"
    ) as told:
        check_settings(models, allow=False)
    assert "seeds" not in str(told.value)
    different = check_settings(models, allow=True)
    assert "warning: the models were trained or scored with different settings" in capsys.readouterr().err
    first = tables_of(models, json.loads(PAPER.read_text()), different)[0]
    assert (first.title, first.rows) == ("Different settings", [["epochs (glue/sst2, glue/cola)", "3", "1"]])
    assert check_settings([models[0], Model("C", "", {"glue/rte": cell(1.0)})], allow=False) == []  # an older result


def test_seeds_of_one_model_with_different_settings_are_refused() -> None:
    mixed = Cell((1.0, 2.0), "accuracy", {}, 1.0, (), {"epochs": ("1", "3")})
    with pytest.raises(UsageError, match="epochs: a 1 or 3, b 1 or 3"):
        check_settings([Model("a", "", {"glue/sst2": mixed}), Model("b", "", {"glue/sst2": mixed})], allow=False)


def chance_cell(*scores: float, chance: float, error: float | None = None) -> Cell:
    return Cell(scores, "accuracy", {}, 1.0, (), chance=chance, error=error)


def test_retention_above_chance_leaves_out_tasks_near_chance() -> None:
    teacher = Model(
        "t",
        "",
        {
            "glue/sst2": chance_cell(89.0, 91.0, chance=50.0),
            "glue/rte": chance_cell(54.0, chance=50.0, error=3.0),  # 1.3 standard errors above chance
            "glue/mrpc": chance_cell(84.0, chance=81.0),  # one seed of F1: unknown
            "glue/qnli": cell(80.0),  # an older result
        },
    )
    student = Model("s", "", {task: cell(one.mean - 2.0) for task, one in teacher.cells.items()})
    assert mean_above_chance(teacher, student, ("glue/rte",)) == pytest.approx((38 / 40 + 1 / 3) / 2)
    tables = {table.title: table for table in tables_of([teacher, student], json.loads(PAPER.read_text()))}
    rows = {row[0]: row[1:] for row in tables["All tasks"].rows}
    assert rows["glue/sst2, accuracy"] == ["90.0 ± 1.4", "88.0 (97.8 %, 95.0 % above chance)"]
    assert rows["glue/qnli, accuracy"] == ["80.0", "78.0 (97.5 %)"]
    assert rows["mean retention"][1] == "97.3 %"
    assert rows["mean retention without tasks near chance"][1] == "97.6 %"
    assert rows["mean retention above chance, without tasks near chance"] == ["100.0 %", "64.2 %"]
    near = {row[0]: row[-1] for row in tables["Teacher against chance"].rows}
    assert near == {"glue/sst2": "no", "glue/rte": "yes", "glue/mrpc": "unknown"}
    assert "Results without the score of chance: glue/qnli." in tables["Teacher against chance"].note


def test_every_task_with_several_languages_has_a_table_of_all_metrics() -> None:
    languages = {"de": {"macro_f1": 70.0, "accuracy": 80.0}, "en": {"macro_f1": 90.0, "accuracy": 92.0}}
    many = Cell((80.0,), "macro_f1", languages, 1.0, (), pooled={"macro_f1": 88.0, "accuracy": 90.0})
    models = [Model("t", "", {"sentiment/tweets-zero-shot": many, "glue/sst2": cell(1.0)})]
    tables = {table.title: table for table in tables_of(models, json.loads(PAPER.read_text()))}
    assert tables["All tasks"].rows[0][0] == "sentiment/tweets-zero-shot, macro f1, mean over 2 languages"
    found = tables["sentiment/tweets-zero-shot, all metrics by language"]
    assert found.head == ["model, metric", "de", "en", "mean over languages", "all rows"]
    assert found.rows == [
        ["t, macro f1", "70.0", "90.0", "80.0", "88.0"],
        ["t, accuracy", "80.0", "92.0", "86.0", "90.0"],
    ]
    assert not any(title.startswith("glue/sst2") for title in tables)


def test_every_language_has_its_retention_plain_and_above_chance() -> None:
    def of(de: float, en: float, pooled: float, **more: Any) -> Cell:
        points = {"de": {"accuracy": de}, "en": {"accuracy": en}}
        settings = {"taught": ("en",)}
        return Cell(((de + en) / 2,), "accuracy", points, 1.0, (), settings, {"accuracy": pooled}, **more)

    chance = {"chance": 40.0, "chance_by_language": {"de": 50.0, "en": 30.0}}
    models = [
        Model("same", "", {"xnli/xnli": of(70.0, 90.0, 81.0, **chance)}),
        Model("same", "", {"xnli/xnli": of(60.0, 87.0, 75.0)}),
        Model("other", "", {"glue/sst2": cell(1.0)}),
    ]
    tables = {table.title: table for table in tables_of(models, json.loads(PAPER.read_text()))}
    found = tables["xnli/xnli by language"]
    assert found.head == ["language", "chance", "same", "same"]
    assert found.rows == [
        ["de", "50.0", "70.0", "60.0 (85.7 %, 50.0 % above chance)"],
        ["en", "30.0", "90.0", "87.0 (96.7 %, 95.0 % above chance)"],
        ["mean over languages", "40.0", "80.0", "73.5 (91.9 %, 83.8 % above chance)"],
        ["all rows", "", "81.0", "75.0 (92.6 %)"],
    ]
    assert "Taught: en." in found.note


def results(home: Path, digest: str, scores: dict[tuple[str, int], float], **more: Any) -> None:
    for (task, seed), score in scores.items():
        engines = {"pytorch": {"by_language": {}, "scores": {}}}
        result: dict[str, Any] = {
            "score": score, "metric": "accuracy", "engines": engines, "seconds": 5.0, "notes": ["half of it"],
            "model": {"name": "kept", "architecture": "L1-H1-D8-F8-gelu"},
            "data": {"digest": "d"}, "train_examples": 100, "test_examples": 50, **more,
        }  # fmt: skip

        def work(folder: Path, result: dict[str, Any] = result, task: str = task, seed: int = seed) -> dict[str, Any]:
            write_json(folder / RESULT, result)
            return {"task": task, "seed": seed}

        build(home, "suite", "x", {"task": task, "seed": seed, "more": more}, {"model": digest, "data": "d"}, work)


def test_the_headline_of_an_older_result_becomes_the_mean_over_languages(tmp_path: Path) -> None:
    old = {"pytorch": {"by_language": {"de": 0.5, "en": 0.9}, "scores": {"accuracy": 0.86}}}
    results(tmp_path, "a" * 64, {("xnli/xnli", 0): 0.86}, engines=old)
    found = read_model(tmp_path, "a" * 64).cells["xnli/xnli"]
    assert found.scores == (pytest.approx(70.0),)
    assert (found.chance, found.pooled["accuracy"]) == (None, pytest.approx(86.0))
    assert found.settings["languages"] == ("de, en",)


@pytest.mark.parametrize(
    ("setting", "values", "message"),
    [
        ("epochs", (3, 1), "epochs: kept 3, kept 1"),
        ("train_examples", (100, 90), "train rows: kept 100, kept 90"),
        ("data", ({"digest": "d"}, {"digest": "e"}), "data: kept d, kept e"),
        ("tried", ([{"learning_rate": 1e-4}, {"learning_rate": 2e-5}], [{"learning_rate": 1e-4}]), "learning rates: "),
    ],
)
def test_stored_results_of_different_settings_are_refused(
    setting: str, values: tuple[Any, Any], message: str, tmp_path: Path
) -> None:
    for digest, value in zip(("a" * 64, "b" * 64), values, strict=True):
        results(tmp_path, digest, {("glue/sst2", 0): 0.9}, **{setting: value})
    with pytest.raises(UsageError, match=message):
        compare_suites(("a" * 64, "b" * 64), home=tmp_path)
    compare_suites(("a" * 64, "b" * 64), allow_different_settings=True, home=tmp_path)
    assert "different settings, which the first table lists" in (tmp_path / "suites.html").read_text()
    assert "## Different settings" in (tmp_path / "suites.md").read_text()


def test_the_command_reads_results_and_writes_markdown_and_a_page(
    tiny_teacher: Teacher, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from kdnas.evaluation.run import resolve_student

    other = tmp_path / "latest" / "student"  # a link, as the pipeline creates it
    other.parent.mkdir()
    other.symlink_to(shutil.copytree(tiny_teacher.path, tmp_path / "refine" / "small-a1b2" / "student"))
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"note": "another"}))
    home = tmp_path / "home"
    with pytest.raises(UsageError, match=r"no results below .*run `kdnas suites --model"):
        compare_suites((str(tiny_teacher.path), str(other)), home=home)
    results(home, resolve_student(tiny_teacher.path)[1], {("glue/sst2", 0): 0.9, ("glue/sst2", 1): 0.8})
    results(home, resolve_student(other)[1], {("glue/sst2", 0): 0.68})
    with pytest.raises(UsageError, match=r"seeds: .* 0, 1, small-a1b2 0"):
        compare_suites((str(tiny_teacher.path), str(other)), home=home)
    written = compare_suites((str(tiny_teacher.path), str(other)), allow_different_settings=True, home=home).path
    assert written is not None
    text = written.read_text()
    assert "85.0 ± 7.1 | 68.0 (80.0 %)" in text
    assert "| small-a1b2 |" in text
    assert "latest" not in text
    assert "glue/sst2: half of it." in text
    page = (home / "suites.html").read_text()
    assert "85.0 ± 7.1" in page
    assert "http://" not in page.split("<body>")[1]
    digests = [resolve_student(path)[1] for path in (tiny_teacher.path, other)]
    compare_suites(
        (digests[0][:8], digests[1]), allow_different_settings=True, home=home
    )  # models whose folders no longer exist
    assert "| task, metric | kept | kept |" in (home / "suites.md").read_text()
    with pytest.raises(UsageError, match="at least two are needed"):
        compare_suites((str(other),), home=home)


def test_speed_ups_belong_to_the_timed_teacher_and_student(tmp_path: Path) -> None:
    teacher = Model("t", "L6-H12-D384-F1536-gelu", {"glue/sst2": cell(80.0)}, "aa")
    student = Model("s", "L3-H12-D384-F384-gelu", {"glue/sst2": cell(72.0)}, "bb")

    def times(name: str, middle: float) -> dict[str, Any]:
        return {"name": name, "speedup": middle, "speedup_low": middle - 1, "speedup_high": middle + 1}

    rows = [
        times("teacher pytorch-f32", 2),
        times("student onnxruntime-int8", 20),
        times("teacher onnxruntime-int8", 8),
    ]
    speed = build(tmp_path, "speed", "x", {}, {"teacher": "aa11", "student": "bb22"}, lambda _: {"rows": rows})
    found = of_rounds([teacher, student], speed.path)
    assert found[0].speed_ups == {"pytorch-f32": (2, 1, 3), "onnxruntime-int8": (8, 7, 9)}
    assert found[1].speed_ups == {"onnxruntime-int8": (20, 19, 21)}
    drawn = {trace.name: trace for trace in speed_scatter(found, json.loads(PAPER.read_text())).data}
    assert list(drawn["onnxruntime-int8"].x) == [8, 20]
    assert list(drawn["onnxruntime-int8"].y) == pytest.approx([100, 90])
    assert list(drawn["onnxruntime-int8"].error_x.array) == [1, 1]
    assert (list(drawn["pytorch-f32"].text), list(drawn["onnxruntime-int8"].text)) == ([""], ["t", "s"])
    with pytest.raises(
        UsageError, match=r"timed student bb22 and teacher aa11; the first of --models must be that teacher"
    ):
        of_rounds([student, teacher], speed.path)


def test_speed_ups_of_a_latency_table_are_relative_to_its_teacher(tmp_path: Path) -> None:
    measured = table_artifact(tmp_path, law_rows())
    shapes = ("L6-H12-D384-F1536-gelu", "L3-H12-D384-F384-gelu", "L5-H12-D384-F384-gelu")
    found = of_table([Model(shape, shape, {}) for shape in shapes], measured.path)
    ratio = law_ms(Arch(3, 12, 384, 384)) / TEACHER_MS
    assert dict(found[0].speed_ups) == {"latency table": (1.0, 1.0, 1.0)}
    assert found[1].speed_ups["latency table"] == pytest.approx((1 / ratio,) * 3, rel=1e-3)
    assert found[2].speed_ups == {}


def test_a_label_is_on_the_side_away_from_the_nearest_point() -> None:
    points = [(1.0, 10.0), (1.2, 9.0), (8.0, 5.0)]
    assert label_sides(points, points) == ["top", "bottom", "top"]  # the last one has no neighbour
    assert label_sides(points[:1], points[:1]) == ["top"]
