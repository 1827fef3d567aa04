"""Exports: files, parity, resuming after kill -9, and refused models."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import kdnas.export.run as module
from kdnas.errors import UsageError
from kdnas.export.checkpoint import open_checkpoint
from kdnas.export.folder import FORMS
from kdnas.export.options import ExportOptions
from kdnas.export.run import run_export
from kdnas.export.session import Session
from kdnas.export.silence import silence_exporters
from kdnas.models.teacher import Teacher, resolve_teacher
from kdnas.store.artifact import Artifact
from kdnas.store.host import has_bf16
from kdnas.text.corpus import Corpus, build_corpus
from kdnas.text.readers import TextOptions

SMALL = ExportOptions(calibration_sentences=8, parity_sentences=8)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["encoder_export", "classifier_export", "roberta_export", "token_export", "question_export"]
)
def test_every_form_exists_and_is_close_to_pytorch(kind: str, request: pytest.FixtureRequest) -> None:
    artifact: Artifact = request.getfixturevalue(kind)
    files = {str(file.relative_to(artifact.path)) for file in artifact.path.rglob("*") if file.is_file()}
    graphs = {
        "onnx/model.onnx",
        "onnx-int8/model_quantized.onnx",
        *(f"{folder}/openvino_model.{end}" for folder in ("openvino", "openvino/int8") for end in ("xml", "bin")),
    }
    described = {
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "README.md",
        "kdnas.json",
    }
    assert graphs | described <= files
    assert not [name for name in files if "scratch" in name or name.endswith((".tmp", ".made"))]
    assert sorted(artifact.results["forms"]) == sorted(FORMS)
    for form, found in artifact.results["forms"].items():
        assert 0 < found["mean_abs_diff"] <= found["max_abs_diff"]
        assert found["size_mb"] > 0
        if form.endswith("f32"):
            assert found["max_abs_diff"] <= 1e-4 * max(1, found["max_abs_value"])
            assert found["cosine_min"] > 0.99999
        else:
            assert found["cosine_mean"] > 0.9  # random weights; the chosen recipe depends on timings
        assert found["p50_abs_diff"] <= found["p90_abs_diff"] <= found["p99_abs_diff"] <= found["max_abs_diff"]
        assert ("labels_equal" in found) == (kind not in ("encoder_export", "roberta_export"))
        assert form in (artifact.path / "README.md").read_text()
    assert set(artifact.results["run_time_forms"]) == ({"openvino-bf16"} if has_bf16() else set())
    assert artifact.results["sentences"] == 26
    for engine in ("openvino", "onnxruntime"):
        int8, float32 = (artifact.results["forms"][f"{engine}-{width}"]["size_mb"] for width in ("int8", "f32"))
        assert int8 < 0.45 * float32 + 0.3  # 0.3: the graph without its weights
    artifact.verify()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("requested", "made"),
    [("onnxruntime-f32", ["onnxruntime-f32"]), ("openvino-int8", ["openvino-f32", "openvino-int8"])],
)
def test_only_requested_forms_and_their_sources_are_made(
    tmp_path: Path, tiny_teacher: Teacher, corpus: Corpus, requested: str, made: list[str]
) -> None:
    options = ExportOptions(8, 8, forms=(requested,), recipes=("static",))
    artifact = run_export(tmp_path, tiny_teacher.path, tiny_teacher.digest, corpus, options)
    assert sorted(artifact.results["forms"]) == made
    assert {form for form, graph in FORMS.items() if (artifact.path / graph).exists()} == set(made)
    assert Session(artifact.path).form in made
    assert bool(artifact.results["run_time_forms"]) == (has_bf16() and "openvino-f32" in made)


def test_a_finished_export_is_reused(
    shared_home: Path, tiny_teacher: Teacher, corpus: Corpus, encoder_export: Artifact
) -> None:
    again = run_export(
        shared_home,
        tiny_teacher.path,
        tiny_teacher.digest,
        corpus,
        ExportOptions(**encoder_export.manifest["config"]["options"]),
    )
    assert again == encoder_export


KILLED = """
import sys, time
from pathlib import Path
import kdnas.export.recipes as recipes
import kdnas.export.run as run
from kdnas.store.artifact import Artifact
from kdnas.text.corpus import Corpus
home, model, corpus = (Path(word) for word in sys.argv[1:])
recipes.write_onnx_int8 = lambda *_: time.sleep(600)
options = run.ExportOptions(calibration_sentences=8, parity_sentences=8)
run.run_export(home, model, "digest", Corpus(Artifact.load(corpus), 0), options)
"""


@pytest.mark.slow
def test_an_export_killed_with_kill_9_keeps_its_finished_forms(
    tmp_path: Path, classifier_folder: Path, corpus: Corpus, capfd: pytest.CaptureFixture[str]
) -> None:
    command = [sys.executable, "-c", KILLED, tmp_path, classifier_folder, corpus.artifact.path]
    noise = tmp_path / "noise.txt"
    with noise.open("w") as stderr, subprocess.Popen(command, stdout=stderr, stderr=stderr) as process:
        partial = _wait_for_rows(tmp_path, 3, process)
        os.kill(process.pid, signal.SIGKILL)
    made = [graph for form, graph in FORMS.items() if form != "onnxruntime-int8"]
    stamps = {name: (partial / name).stat().st_mtime_ns for name in made}
    (partial / "onnxruntime-int8.scratch").mkdir(exist_ok=True)
    (partial / "onnxruntime-int8.scratch" / "half.bin").write_bytes(b"half")
    capfd.readouterr()
    artifact = run_export(tmp_path, classifier_folder, "digest", corpus, SMALL)
    printed = capfd.readouterr()
    lines = (noise.read_text() + printed.out + printed.err).splitlines()
    assert [line for line in lines if not line.startswith("export: ")] == [], (
        "output of the exporters reached the terminal"
    )
    assert artifact.manifest["attempts"] == 2
    assert {name: (artifact.path / name).stat().st_mtime_ns for name in stamps} == stamps, (
        "finished forms were made a second time"
    )
    assert set(artifact.results["forms"]) == set(FORMS)
    assert not list(artifact.path.rglob("half.bin"))
    artifact.verify()


def _wait_for_rows(home: Path, rows: int, process: "subprocess.Popen[bytes]") -> Path:
    for _ in range(1200):
        logs = list(home.glob("export/*.partial/forms.jsonl"))
        if logs and len(logs[0].read_text().splitlines()) >= rows:
            return logs[0].parent
        assert process.poll() is None, "the process exited too early"
        time.sleep(0.1)
    raise AssertionError(f"fewer than {rows} forms after two minutes")


def _copy(folder: Path, to: Path, **changes: object) -> Path:
    to.mkdir()
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    config = json.loads((to / "config.json").read_text())
    (to / "config.json").write_text(json.dumps({**config, **changes}))
    return to


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["BertForMultipleChoice"]}, "BertForMultipleChoice is not exported"),
        ({"architectures": ["BertForSequenceClassification"]}, r"lacks 4 weights \(bert.pooler"),
        ({"model_type": "gpt2"}, "model '.*': its model_type is 'gpt2'; supported are bert"),
        ({"num_hidden_layers": 5}, "lacks 16 weights"),
        ({"hidden_size": 192}, "cannot be loaded"),
        ({"hidden_act": "sine"}, "cannot be loaded"),
    ],
)
def test_unsupported_and_incomplete_models_are_refused(
    changes: dict[str, object], message: str, tmp_path: Path, tiny_teacher: Teacher, corpus: Corpus
) -> None:
    folder = _copy(tiny_teacher.path, tmp_path / "model", **changes)
    with pytest.raises(UsageError, match=message):
        run_export(tmp_path / "home", folder, "digest", corpus, SMALL)
    assert not list(tmp_path.glob("home/export/*/manifest.json"))


def test_classifiers_whose_outputs_are_no_probabilities_are_refused(
    tmp_path: Path, classifier_folder: Path, corpus: Corpus
) -> None:
    numbers = _copy(classifier_folder, tmp_path / "numbers", problem_type="regression")
    one = _copy(classifier_folder, tmp_path / "one", id2label={"0": "x"}, problem_type="single_label_classification")
    for folder in (numbers, one):
        with pytest.raises(UsageError, match="single-label classifiers"):
            run_export(tmp_path / "home", folder, "digest", corpus, SMALL)


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(UsageError, match="calibration_sentences is 2"):
        ExportOptions(calibration_sentences=2)
    with pytest.raises(UsageError, match="float_bound is 0"):
        ExportOptions(float_bound=0)


def test_silencing_the_exporters_does_not_hide_errors() -> None:
    with pytest.raises(ValueError, match="seen"), silence_exporters():
        raise ValueError("seen")


def test_the_command_exports_and_prints_nothing_to_stdout(
    home: Path,
    classifier_folder: Path,
    classifier_export: Artifact,
    corpus: Corpus,
    corpus_file: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = TextOptions(**corpus.artifact.manifest["config"]["text"])
    options = ExportOptions(**classifier_export.manifest["config"]["options"])
    own = build_corpus(home, str(corpus_file), text, resolve_teacher(str(classifier_folder)))
    digest = open_checkpoint(str(classifier_folder)).digest
    given: list[Any] = []

    def record(*arguments: Any) -> Artifact:
        given.extend(arguments)
        return classifier_export

    monkeypatch.setattr(module, "run_export", record)
    assert module.export(str(classifier_folder), options, str(corpus_file), text, home) == classifier_export
    assert given == [home, classifier_folder, digest, own, options]
    assert capsys.readouterr().out == ""
