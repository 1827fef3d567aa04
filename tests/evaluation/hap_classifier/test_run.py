"""`kdnas hap` from files to a folder: what it writes, exact resume, and the same answers in transformers and in an export."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoModelForSequenceClassification, AutoTokenizer, TextClassificationPipeline

from kdnas.errors import UsageError
from kdnas.evaluation.budget import Speed
from kdnas.evaluation.finetune import Trainer
from kdnas.evaluation.hap_classifier.options import HapOptions
from kdnas.evaluation.hap_classifier.run import ERRORS_FILE, REPORT, hap, run_hap
from kdnas.export.checkpoint import open_checkpoint
from kdnas.export.options import ExportOptions
from kdnas.export.run import run_export
from kdnas.export.session import Session
from kdnas.export.thresholds import read_thresholds
from kdnas.models.teacher import Teacher
from kdnas.text.corpus import Corpus

from .hap_files import write_sets

SETS = ("hate_speech_offensive", "mlma", "germeval18")


def options(root: Path, **changes: Any) -> HapOptions:
    given = {"learning_rates": (2e-3,), "epochs": 5, "seq_len": 32, "max_dev": 200, "sets": SETS, "precision": 0.8}
    return HapOptions(data_root=root, **{**given, **changes})


@pytest.mark.slow
def test_a_classifier_is_made_and_holds_outside_its_sets(
    tiny_teacher: Teacher, corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_sets(tmp_path / "data", rows=1200)
    hap(str(tiny_teacher.path), options(root, leave_out=("germeval18",)), tmp_path / "home", tmp_path / "model")
    assert "in the trained sets (mean)" in capsys.readouterr().err
    folder = tmp_path / "model"
    report = json.loads((folder / REPORT).read_text())
    assert report["in_set"]["macro_f1"]["hate"] > 0.85
    assert report["out_of_set"]["by_set"]["germeval18"]["hate_macro_f1"] > 0.75  # the same words decide there
    inside, outside = (report[name]["macro_f1"]["hate"] for name in ("in_set", "out_of_set"))
    assert report["out_of_set_gap_points"]["hate"] == pytest.approx(100 * (inside - outside), abs=0.01)
    assert set(report["rows"]["train"]) == {"hate_speech_offensive", "mlma"}
    assert set(report["functional"]["at_half"]["languages"]) == {"en", "de", "fr", "pt"}
    thresholds = read_thresholds(folder)
    assert thresholds is not None
    assert thresholds.wanted == {"precision": 0.8}
    limit = thresholds.of("hate", "en")
    assert limit is not None
    entry = json.loads((folder / "thresholds.json").read_text())["labels"]["hate"]
    assert entry["languages"]["en"]["precision"] >= 0.8
    assert thresholds.of("profanity") is None  # no row of these sets knows it
    card = (folder / "README.md").read_text()
    for part in (
        "## Not intended",
        "## Functional suite",
        "| germeval18 |",
        "## Examples of errors",
        "precision of 0.8",
    ):
        assert part in card
    assert all(json.loads(line)["label"] == "hate" for line in (folder / ERRORS_FILE).read_text().splitlines())

    # The same probabilities in transformers and in an export, which keeps the thresholds.
    texts = ["today vermin arrived", "the stupid train arrived", "the report arrived"]
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    pipeline = TextClassificationPipeline(model=model, tokenizer=AutoTokenizer.from_pretrained(folder), top_k=None)
    wanted = [{one["label"]: one["score"] for one in row} for row in pipeline(texts)]
    assert wanted[0]["hate"] > max(limit, wanted[2]["hate"] + 0.4)
    digest = open_checkpoint(str(folder)).digest
    exported = run_export(tmp_path / "home", folder, digest, corpus, ExportOptions(16, 16, forms=("onnxruntime-f32",)))
    session = Session(exported.path)
    for row, expected in zip(session.predict(texts), wanted, strict=True):
        assert dict(zip(session.labels, row.tolist(), strict=True)) == pytest.approx(expected, abs=1e-4)
    assert read_thresholds(exported.path) == thresholds


class StoppedError(Exception):
    """The run is killed."""


@pytest.mark.slow
def test_a_killed_run_resumes_with_the_same_result(
    tiny_teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_sets(tmp_path / "data", rows=120)
    given = options(root, epochs=2, sets=("germeval18",))
    monkeypatch.setattr("kdnas.evaluation.tuning_state.CHECKPOINT_SECONDS", 0.0)
    step, left = Trainer.step, [10**9]

    def counted(self: Trainer, *batch: Any) -> float:
        left[0] -= 1
        if left[0] < 0:
            raise StoppedError
        return step(self, *batch)

    monkeypatch.setattr(Trainer, "step", counted)
    whole = run_hap(tmp_path / "whole", str(tiny_teacher.path), given)
    used = 10**9 - left[0]
    left[0] = used // 2
    with pytest.raises(StoppedError):
        run_hap(tmp_path / "killed", str(tiny_teacher.path), given)
    with monkeypatch.context() as patch:  # a second kill, after training
        left[0] = 10**9
        patch.setattr("kdnas.evaluation.hap_classifier.run.check", lambda *_: (_ for _ in ()).throw(StoppedError))
        with pytest.raises(StoppedError):
            run_hap(tmp_path / "killed", str(tiny_teacher.path), given)
    left[0] = 0  # nothing is trained again
    again = run_hap(tmp_path / "killed", str(tiny_teacher.path), given)
    for name in ("model.safetensors", "thresholds.json", ERRORS_FILE):
        assert (again.path / name).read_bytes() == (whole.path / name).read_bytes()
    first, second = (json.loads((one.path / REPORT).read_text()) for one in (whole, again))
    assert {**first, "seconds": 0} == {**second, "seconds": 0}
    assert not (again.path / "tuning").exists()
    assert not (again.path / "plan.json").exists()
    assert first["reduced"] == first["sampled"] == []
    assert run_hap(tmp_path / "killed", str(tiny_teacher.path), given).path == again.path


@pytest.mark.slow
def test_time_and_scored_rows_are_bounded_and_stated(
    tiny_teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_sets(tmp_path / "data", rows=600)
    given = options(
        root, epochs=40, learning_rates=(2e-3, 1e-3), max_minutes=0.05, max_test=20, leave_out=("germeval18",)
    )
    monkeypatch.setattr("kdnas.evaluation.budget.MEASURE_SECONDS", 0.2)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", lambda *_: (_ for _ in ()).throw(StoppedError))
        patch.setattr("kdnas.evaluation.budget.measured_speed", lambda *_, **__: Speed(2000.0, 4000.0))
        with pytest.raises(StoppedError):
            run_hap(tmp_path / "home", str(tiny_teacher.path), given)
    (file,) = tmp_path.glob("home/hap/*.partial/plan.json")
    plan = json.loads(file.read_text())["plan"]
    monkeypatch.setattr("kdnas.evaluation.budget.measured_speed", None)  # a resumed run keeps its plan
    hap(str(tiny_teacher.path), given, tmp_path / "home", tmp_path / "model")
    printed = capsys.readouterr().err
    report = json.loads((tmp_path / "model" / REPORT).read_text())
    assert report["plan"] == plan
    assert plan["epochs"] < 40
    assert f"{plan['epochs']} of 40 epochs" in report["reduced"]
    # At most 20 rows of each set and language: Davidson en, MLMA ar, en and fr in dev and test; GermEval de left out.
    assert report["in_set"]["rows"] == report["test_examples"] == 80
    assert report["out_of_set"]["rows"] == 20
    assert [line.split()[0] for line in report["sampled"]] == ["80", "80", "20"]
    entry = json.loads((tmp_path / "model/thresholds.json").read_text())["labels"]["hate"]
    assert entry["rows"] <= 80
    assert sum(row["rows"] for codes in report["rows"]["test"].values() for row in codes.values()) == 80
    card = (tmp_path / "model/README.md").read_text()
    for part in (*report["reduced"], *report["sampled"], "To fit 0.05 minutes"):
        assert part in card
    assert "hap: to fit --max-minutes: trained with" in printed
    assert "hap: with --max-test: scored 80 of" in printed
    assert not (tmp_path / "model/plan.json").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": 0.0}, "precision is 0.0"),
        ({"precision": None}, "give one of them"),
        ({"learning_rates": ()}, r"learning_rates is \[\]"),
        ({"teacher": Path()}, "belong together"),
        ({"word_lists": Path("missing.jsonl")}, "no such file"),
        ({"max_per_set": 3}, "at least 20"),
        ({"max_test": 9}, "max_test is 9; at least 10"),
        ({"max_minutes": 0.0}, "max_minutes is 0.0; more than 0"),
    ],
)
def test_options_out_of_range_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        options(tmp_path, **changes)


def test_a_false_positive_rate_takes_precedence_over_a_precision(tmp_path: Path) -> None:
    wanted = options(tmp_path, false_positive_rate=0.01).wanted
    assert (wanted.name, wanted.value) == ("false_positive_rate", 0.01)
    assert np.isclose(options(tmp_path).wanted.value, 0.8)
