"""The suites on a tiny model and small local data sets: kinds, engines, resuming, and refused options."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdnas.cli import main
from kdnas.errors import UsageError
from kdnas.evaluation.compare_results import read_model
from kdnas.evaluation.harness import RESULT, run_suites, suites
from kdnas.evaluation.suite_options import SuiteOptions
from kdnas.evaluation.suite_scores import score
from kdnas.evaluation.tasks import Task
from kdnas.models.teacher import Teacher
from kdnas.store.artifact import Artifact

pytestmark = pytest.mark.slow


COLOURS, OTHERS = ("red", "green", "blue"), ("house", "walk", "late", "of")


def rows(count: int, seed: int) -> list[dict[str, Any]]:
    """Words, in which colours are entities; a sentence has class 1 if it contains a colour."""
    rng = np.random.default_rng(seed)
    result = []
    for number in range(count):
        words = [f"{seed}{number}", *rng.choice(OTHERS, 5).tolist()]
        if number % 2:
            words[1 + int(rng.integers(5))] = str(rng.choice(COLOURS))
        result.append({"words": words, "label": number % 2})
    return result


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for seed, (split, count) in enumerate({"train": 500, "validation": 60, "test": 60}.items()):
        made = rows(count, seed)
        texts = [{"sentence": " ".join(row["words"]), "label": row["label"]} for row in made]
        words = [{"tokens": row["words"], "ner_tags": [int(word in COLOURS) for word in row["words"]]} for row in made]
        for folder, lines in (("glue/sst2", texts), ("ner/conll2003", words)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            (root / folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return root


@pytest.fixture(scope="module")
def options(data_root: Path) -> SuiteOptions:
    return SuiteOptions(data_root, seeds=(0, 1), learning_rates=(2e-3, 1e-6), epochs=4)


@pytest.fixture(scope="module")
def found(home: Path, tiny_teacher: Teacher, options: SuiteOptions) -> list[Artifact]:
    return run_suites(home, str(tiny_teacher.path), ("glue/sst2", "glue/rte", "conll"), options)


def test_each_task_and_seed_has_a_result(found: list[Artifact], home: Path) -> None:
    assert [(one.results["task"], one.results["seed"]) for one in found] == [
        ("glue/sst2", 0),
        ("glue/sst2", 1),
        ("conll/2003", 0),
        ("conll/2003", 1),
    ]
    for artifact in found:
        result = json.loads((artifact.path / RESULT).read_text())
        assert result["score"] > 0.9
        assert result["score"] == result["engines"]["pytorch"]["scores"][result["metric"]]
        assert result["learning_rate"] == 2e-3
        assert result["test_examples"] == 60
        assert result["host"]
        card = (home / "tuned" / result["tuned"] / "model/README.md").read_text()
        assert f"{result['metric']}, {result['dev_score']:.4f}, on\n{result['dev_examples']} dev texts" in card
    assert found[0].results["score"] != found[2].results["score"] or found[0].path != found[2].path


def test_the_first_seed_chooses_the_learning_rate_for_all_seeds(found: list[Artifact]) -> None:
    tried = [len(json.loads((artifact.path / RESULT).read_text())["tried"]) for artifact in found]
    assert tried == [2, 1, 2, 1]


def test_a_hap_task_has_scores_by_group_and_a_threshold(tmp_path: Path, tiny_teacher: Teacher) -> None:
    for seed, (split, count) in enumerate({"train": 400, "dev": 60, "test": 60}.items()):
        made = [
            {"TEXT": " ".join(row["words"]), "label": row["label"], "topic": ("race", "region")[index % 3 == 0]}
            for index, row in enumerate(rows(count, seed))
        ]
        (tmp_path / "hap/cold").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"hap/cold/{split}.jsonl").write_text("\n".join(map(json.dumps, made)))
    options = SuiteOptions(tmp_path, seeds=(0,), learning_rates=(2e-3,), epochs=3, precision=0.8)
    (artifact,) = run_suites(tmp_path, str(tiny_teacher.path), ("hap/cold",), options)
    found = json.loads((artifact.path / "pytorch.json").read_text())
    assert set(found["by_group"]) == {"race", "region"}
    assert found["threshold"]["wanted_precision"] == 0.8
    assert found["threshold"]["precision"] > 0.7
    assert {"average_precision", "false_positive_rate", "calibration_error"} <= set(found["scores"])


def test_a_task_in_several_languages_has_their_mean_as_its_headline(
    tmp_path: Path, tiny_teacher: Teacher, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sentiment/afrisenti").mkdir(parents=True)
    for language, counts in {"amh": (120, 30, 60), "hau": (120, 30, 20)}.items():
        for seed, (split, count) in enumerate(zip(("train", "validation", "test"), counts, strict=True)):
            lines = [
                json.dumps({"tweet": " ".join(row["words"]), "label": row["label"]})
                for row in rows(count, seed + len(language) * 10)
            ]
            (tmp_path / f"sentiment/afrisenti/{language}.{split}.jsonl").write_text("\n".join(lines))
    options = SuiteOptions(tmp_path, seeds=(0,), learning_rates=(2e-3,), epochs=1)
    (found,) = suites(str(tiny_teacher.path), ("sentiment/afrisenti",), options, tmp_path)
    assert found.path is not None
    result = json.loads((found.path / RESULT).read_text())
    engine = result["engines"]["pytorch"]
    by_language = engine["by_language"]
    assert result["averaging"] == "mean over languages"
    assert result["score"] == pytest.approx((by_language["am"]["macro_f1"] + by_language["ha"]["macro_f1"]) / 2)
    assert result["pooled_score"] == engine["scores"]["macro_f1"]
    assert by_language["ha"].keys() == engine["scores"].keys()
    assert result["chance"] == pytest.approx(1 / 3)
    assert result["chance_by_language"] == {"am": pytest.approx(1 / 3), "ha": pytest.approx(1 / 3)}
    assert result["chosen_by"].startswith("macro_f1 on dev (mean over languages)")
    assert result["standard_error"] is None
    printed = capsys.readouterr().err
    assert "sentiment/afrisenti by language (taught: am, arq, " in printed
    assert "mean over languages" in printed


def test_languages_are_part_of_the_identity_and_exports_score_them_alike(tmp_path: Path, tiny_teacher: Teacher) -> None:
    (tmp_path / "ner/panx").mkdir(parents=True)
    for number, code in enumerate(("de", "en", "sw")):
        for seed, split in enumerate(("train", "validation")):
            lines = [
                json.dumps({"tokens": row["words"], "ner_tags": [int(word in COLOURS) for word in row["words"]]})
                for row in rows(120, 10 * number + seed)
            ]
            (tmp_path / f"ner/panx/{code}.{split}.jsonl").write_text("\n".join(lines))
    engines = ("pytorch", "openvino-f32")
    options = SuiteOptions(
        tmp_path, seeds=(0,), learning_rates=(2e-3,), epochs=2, engines=engines, languages=("sw", "de")
    )
    (two,) = run_suites(tmp_path, str(tiny_teacher.path), ("ner/panx-zero-shot",), options)
    (german,) = run_suites(
        tmp_path, str(tiny_teacher.path), ("ner/panx-zero-shot",), replace(options, taught=("de",), languages=("de",))
    )
    assert two.path != german.path
    results = [json.loads((one.path / RESULT).read_text()) for one in (two, german)]
    names = ["ner/panx-zero-shot (scored de, sw)", "ner/panx-zero-shot (taught de; scored de)"]
    assert [one["task"] for one in results] == names
    assert [one["taught"] for one in results] == [["en"], ["de"]]
    assert two.path.name.startswith("ner-panx-zero-shot-0-")
    for one, codes in zip(results, ({"de", "sw"}, {"de"}), strict=True):
        ours, exported = (one["engines"][engine]["by_language"] for engine in engines)
        assert set(ours) == codes
        for code in codes:
            assert exported[code]["entity_f1"] == pytest.approx(ours[code]["entity_f1"], abs=1e-3)
    cells = read_model(tmp_path, str(tiny_teacher.path)).cells
    assert set(cells) == set(names)  # they are never mixed
    assert set(cells[names[0]].chance_by_language) == {"de", "sw"}
    again = replace(options, languages=("de", "sw"))
    assert run_suites(tmp_path, str(tiny_teacher.path), ("ner/panx-zero-shot",), again)[0].path == two.path


def test_max_test_bounds_random_test_rows_and_the_dev_rows_of_the_threshold(
    tmp_path: Path, tiny_teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hap/cold").mkdir(parents=True)
    for seed, (split, count) in enumerate({"train": 200, "dev": 90, "test": 90}.items()):
        made = sorted(rows(count, seed), key=lambda row: row["label"])  # class after class, as in HateBR
        texts = [{"TEXT": " ".join(row["words"]), "label": row["label"], "topic": "race"} for row in made]
        (tmp_path / f"hap/cold/{split}.jsonl").write_text("\n".join(map(json.dumps, texts)))
    scored: list[Task] = []

    def score_all(folder: Path, engine: str, engines: Any, task: Task, *rest: Any) -> dict[str, Any]:
        scored.append(task)
        return score(folder, engine, engines, task, *rest)

    monkeypatch.setattr("kdnas.evaluation.harness.score", score_all)
    options = SuiteOptions(tmp_path, seeds=(0,), learning_rates=(2e-3,), epochs=1, max_test=30)
    (artifact,) = run_suites(tmp_path, str(tiny_teacher.path), ("hap/cold",), options)
    (task,) = scored
    for split in (task.dev, task.test):
        assert len(split) == 30
        assert set(split.labels) == {0, 1}
    result = json.loads((artifact.path / RESULT).read_text())
    assert {"scored 30 of 90 test rows", "threshold chosen on 30 of 90 dev rows"} <= set(result["notes"])
    assert result["dev_examples"] == 90  # the checkpoint is still chosen on all
    all_rows = replace(options, max_test=None)
    monkeypatch.setattr("kdnas.evaluation.finetune.tune", None)  # the same model
    (other,) = run_suites(tmp_path, str(tiny_teacher.path), ("hap/cold",), all_rows)
    assert json.loads((other.path / RESULT).read_text())["tuned"] == result["tuned"]
    assert [len(split) for split in (scored[1].dev, scored[1].test)] == [90, 90]


def test_cut_words_are_noted(tmp_path: Path, tiny_teacher: Teacher) -> None:
    (tmp_path / "ner/conll2003").mkdir(parents=True)
    for seed, split in enumerate(("train", "validation", "test")):
        made = [
            row["words"] * (40 if split == "test" and index < 3 else 1) for index, row in enumerate(rows(120, seed))
        ]
        lines = [{"tokens": words, "ner_tags": [int(word in COLOURS) for word in words]} for words in made]
        (tmp_path / f"ner/conll2003/{split}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    options = SuiteOptions(tmp_path, seeds=(0,), learning_rates=(2e-3,), epochs=1)
    (artifact,) = run_suites(tmp_path, str(tiny_teacher.path), ("conll",), options)
    (note,) = [one for one in artifact.results["notes"] if "cut at" in one]
    assert note.startswith("3 of 120 (2.5 %) test rows are cut at 128 tokens and lose")


def test_an_export_has_the_same_scores_as_pytorch(home: Path, tiny_teacher: Teacher, data_root: Path) -> None:
    options = SuiteOptions(data_root, seeds=(0,), engines=("pytorch", "openvino-f32"), learning_rates=(2e-3,), epochs=1)
    with pytest.MonkeyPatch.context() as patch:
        run_suites(home, str(tiny_teacher.path), ("glue/sst2", "conll"), replace(options, engines=("pytorch",)))
        patch.setattr("kdnas.evaluation.finetune.tune", None)  # both score the same models
        scored = run_suites(home, str(tiny_teacher.path), ("glue/sst2", "conll"), options)
    for artifact in scored:
        engines = json.loads((artifact.path / RESULT).read_text())["engines"]
        ours, exported = engines["pytorch"]["scores"], engines["openvino-f32"]["scores"]
        assert exported.keys() == ours.keys()
        for name, value in ours.items():
            assert exported[name] == pytest.approx(value, abs=1e-4)
    exports = [json.loads(file.read_text()) for file in (home / "export").glob("model-*/kdnas.json")]
    assert exports
    assert all(export["forms"] == ["openvino-f32"] for export in exports)


def test_finished_runs_are_reused(
    found: list[Artifact], home: Path, tiny_teacher: Teacher, options: SuiteOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdnas.evaluation.finetune.tune", None)
    again = run_suites(home, str(tiny_teacher.path), ("glue/sst2", "conll"), options)
    assert [one.path for one in again] == [one.path for one in found]


def test_a_killed_run_reuses_its_training(
    found: list[Artifact], tmp_path: Path, tiny_teacher: Teacher, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = SuiteOptions(data_root, seeds=(0,), learning_rates=(2e-3,), epochs=1)
    with monkeypatch.context() as broken:
        broken.setattr("kdnas.evaluation.harness.score", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run_suites(tmp_path, str(tiny_teacher.path), ("glue/sst2",), options)
    monkeypatch.setattr("kdnas.evaluation.finetune.tune", None)
    (artifact,) = run_suites(tmp_path, str(tiny_teacher.path), ("glue/sst2",), options)
    assert artifact.results["score"] > 0.4


def test_time_limits_and_caps_are_applied_and_noted(tmp_path: Path, tiny_teacher: Teacher, data_root: Path) -> None:
    options = SuiteOptions(
        data_root, seeds=(3,), learning_rates=(2e-3,), epochs=50, max_examples=200, max_test=20, max_minutes=0.05
    )
    (artifact,) = run_suites(tmp_path, str(tiny_teacher.path), ("glue/sst2",), options)
    result = json.loads((artifact.path / RESULT).read_text())
    assert result["plan"]["epochs"] < 50
    assert result["train_examples"] <= 200
    assert result["test_examples"] == 20
    assert "scored 20 of 60 test rows" in result["notes"]
    assert any(note.startswith(f"trained on {result['train_examples']} of 4") for note in result["notes"])


def test_tasks_without_data_are_reported(
    home: Path, tiny_teacher: Teacher, options: SuiteOptions, capsys: pytest.CaptureFixture[str], found: list[Artifact]
) -> None:
    results = suites(str(tiny_teacher.path), ("glue/sst2", "glue/rte"), options, home)
    printed = capsys.readouterr()
    assert [one.path for one in results] == [one.path for one in found[:2]]
    assert printed.out == ""
    assert "1 of 2 tasks left out, because their data is not available: glue/rte" in printed.err
    assert "glue/sst2" in printed.err
    with pytest.raises(UsageError, match="no data for any of glue/rte"):
        run_suites(home, str(tiny_teacher.path), ("glue/rte",), options)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tasks", "glue/sst3"], "there is no suite or task glue/sst3"),
        (["--tasks", "glue", "--engines", "tpu"], "engines has"),
        (["--tasks", "glue", "--seeds", "1,1"], "different numbers"),
        (["--tasks", "glue", "--data_root", "/none"], "no such folder"),
        (["--tasks", "glue", "--learning_rates", "2"], "between 0 and 1"),
        (
            ["--tasks", "glue/sst2", "--languages", "de"],
            "languages has de, which no chosen task has: glue/sst2 has one language",
        ),
        (["--tasks", "xnli", "--taught", "en,en"], "taught is en,en; give each language once"),
        (["--tasks", "xnli", "--embedding_rows", "some"], "one of used, frozen, all"),
    ],
)
def test_invalid_options_are_reported_without_a_traceback(
    words: list[str], message: str, tiny_teacher: Teacher, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["suites", "--model", str(tiny_teacher.path), "--home", str(tmp_path), *words])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
