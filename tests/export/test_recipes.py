"""int8 recipes: the choice, refused forms, and the outputs of each recipe."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdnas.cli import main
from kdnas.errors import BoundError, UsageError
from kdnas.export import int8_search
from kdnas.export.checkpoint import load_model, open_checkpoint
from kdnas.export.engines import open_graph
from kdnas.export.folder import FORMS, read_settings
from kdnas.export.int8_search import CONTROLLED, Int8Search, choose, require_inside
from kdnas.export.judge import answers_kept
from kdnas.export.onnx_form import (
    QUANTIZED,
    write_onnx,
    write_onnx_int8,
    write_onnx_int8_attention,
    write_onnx_int8_blocks,
)
from kdnas.export.openvino_form import GRAPH, write_int8, write_int8_controlled, write_openvino
from kdnas.export.options import ExportOptions
from kdnas.export.recipes import FALLBACKS, RECIPES
from kdnas.export.run import run_export
from kdnas.export.session import Session
from kdnas.export.silence import silence_exporters
from kdnas.models.teacher import Teacher
from kdnas.store.artifact import Artifact
from kdnas.text.corpus import Corpus

ROWS = [list(range(5, 5 + length)) for length in range(6, 30, 2)]
TASK, OUTPUT = "feature-extraction", ("last_hidden_state",)
FOUND = st.fixed_dictionaries({"latency_ms": st.floats(0.1, 10), "dev_loss_points": st.floats(0, 100)})


@given(st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), FOUND, min_size=1), st.floats(0, 100))
def test_the_fastest_recipe_within_the_bound_is_chosen_else_the_smallest_loss(
    tried: dict[str, Any], bound: float
) -> None:
    taken = tried[choose(tried, bound)]
    inside = [found for found in tried.values() if found["dev_loss_points"] <= bound]
    if inside:
        assert taken["dev_loss_points"] <= bound
        assert taken["latency_ms"] == min(found["latency_ms"] for found in inside)
    else:
        assert taken["dev_loss_points"] == min(found["dev_loss_points"] for found in tried.values())


def test_every_recipe_is_tried_and_the_choice_is_recorded(classifier_export: Artifact) -> None:
    forms = classifier_export.results["forms"]
    for form, names in RECIPES.items():
        tried = forms[form]["tried"]
        assert set(names) - set(FALLBACKS) <= set(tried) <= set(names)
        assert set(tried) == set(names) or any(found["dev_loss_points"] <= 1 for found in tried.values())
        assert forms[form]["recipe"] == choose(forms[form]["tried"], 1.0)
        assert forms[form]["recipe"] in (classifier_export.path / "README.md").read_text()
    assert not list(classifier_export.path.rglob("*scratch*"))


def test_a_session_runs_the_fastest_form_within_the_loss_bound(classifier_export: Artifact) -> None:
    forms = classifier_export.results["forms"]
    inside = [form for form in forms if forms[form]["loss_points"] <= 1]
    assert Session(classifier_export.path).form == min(inside, key=lambda form: forms[form]["latency_ms"])
    order = read_settings(classifier_export.path)["forms"]
    assert sorted(order) == sorted(FORMS)
    assert order == sorted(order, key=lambda form: (form not in inside, forms[form]["latency_ms"]))


@pytest.fixture(scope="module")
def answers(classifier_export: Artifact, tmp_path_factory: pytest.TempPathFactory, corpus: Corpus) -> Path:
    """Texts with the labels that the model predicts: it scores 100, and each label that int8 changes is a loss."""
    texts = corpus.validation.texts[:300]
    session = Session(classifier_export.path, "openvino-f32")
    labels = session.predict(list(texts)).argmax(-1)
    path = tmp_path_factory.mktemp("labelled") / "texts.jsonl"
    rows = (
        {"text": text, "label": session.labels[label], "language": "ab"[number % 2]}
        for number, (text, label) in enumerate(zip(texts, labels.tolist(), strict=True))
    )
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.mark.slow
def test_int8_above_the_loss_bound_is_refused_with_exit_code_3(
    answers: Path, classifier_folder: Path, corpus: Corpus, corpus_file: Path, tmp_path: Path
) -> None:
    options = ExportOptions(24, 24, recipes=("static", "dynamic"), evaluation=answers, max_loss_points=1e-6)
    digest = open_checkpoint(str(classifier_folder)).digest
    with pytest.raises(BoundError, match=r"points of macro-F1 on .* 1e-06 .*allow_loss"):
        run_export(tmp_path, classifier_folder, digest, corpus, options)
    assert not list(tmp_path.rglob("manifest.json"))
    allowed = ExportOptions(**{**vars(options), "allow_loss": True})
    forms = run_export(tmp_path, classifier_folder, digest, corpus, allowed).results["forms"]
    lost = forms["onnxruntime-int8"]
    assert set(lost["loss_by_language"]) == {"a", "b"}
    assert lost["loss_points"] == max(lost["loss_by_language"].values()) > 0
    assert forms["openvino-f32"]["loss_points"] == 0
    with pytest.raises(BoundError):  # the finished export that was made with allow_loss
        run_export(tmp_path, classifier_folder, digest, corpus, options)
    words = ["export", "--model", str(classifier_folder), "--evaluation", str(answers), "--max_loss_points", "0.000001"]
    words += ["--recipes", "static,dynamic", "--calibration_sentences", "24", "--parity_sentences", "24"]
    words += ["--corpus", str(corpus_file), "--home", str(tmp_path)]
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 3


@pytest.mark.exhaustive
def test_tokens_and_answers_are_scored_by_their_own_metrics(
    token_folder: Path, question_folder: Path, corpus: Corpus, tmp_path: Path
) -> None:
    texts = corpus.validation.texts[:100]
    tags = ({"tokens": (words := text.split()), "ner_tags": [len(word) % 3 for word in words]} for text in texts)
    asked = ({"question": "What?", "context": text, "answers": {"text": [text.split()[0]]}} for text in texts)
    for folder, rows, metric in ((token_folder, tags, "entity F1"), (question_folder, asked, "answer F1")):
        path = tmp_path / f"{folder.name}.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)))
        options = ExportOptions(24, 24, recipes=("static", "dynamic"), evaluation=path, allow_loss=True)
        artifact = run_export(tmp_path, folder, open_checkpoint(str(folder)).digest, corpus, options)
        forms = artifact.results["forms"]
        assert {row["loss_of"] for row in forms.values()} == {metric}
        assert abs(forms["openvino-f32"]["loss_points"]) < 0.5
        assert artifact.results["labelled_texts"] == 100
        assert artifact.results["loss_rows"] == {"dev": 50, "test": 50}
        assert "50 (dev) chose the recipe" in " ".join((artifact.path / "README.md").read_text().split())
        assert f"Points lost: {metric}" in (artifact.path / "README.md").read_text()


@pytest.mark.exhaustive
def test_accuracy_control_loses_less_than_the_static_recipe(tiny_teacher: Teacher, tmp_path: Path) -> None:
    def kept(expected: np.ndarray, got: np.ndarray) -> float:
        return answers_kept(TASK, expected, got)

    with silence_exporters():
        write_openvino(load_model(open_checkpoint(str(tiny_teacher.path))), TASK, tmp_path / "f32")
        write_int8(tmp_path / "f32", TASK, ROWS, tmp_path / "static", smooth=False)
        write_int8_controlled(tmp_path / "f32", ROWS, kept, 0.999998, tmp_path / "controlled")
    names = ("f32", "static", "controlled")
    runs = {name: open_graph(tmp_path / name / GRAPH, "openvino-int8", OUTPUT, 1) for name in names}
    answers = {
        name: [run(np.array([row]), np.ones((1, len(row)), dtype=np.int64)) for row in ROWS]
        for name, run in runs.items()
    }
    lost = {
        name: 1 - np.mean([kept(a, b) for a, b in zip(answers["f32"], answers[name], strict=True)])
        for name in names[1:]
    }
    assert lost["controlled"] <= 3e-6 < lost["static"]
    assert (tmp_path / "controlled" / "config.json").is_file()
    # Weights that NNCF restores are not smoothed: with smoothed activations they would give wrong outputs.
    operators = openvino.Core().read_model(str(tmp_path / "controlled" / GRAPH)).get_ops()
    assert not [node for node in operators if "smooth_quant" in node.get_friendly_name()]


@pytest.mark.parametrize("wanted", [False, True])
def test_accuracy_control_is_tried_only_on_request(
    wanted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pretend(self: Int8Search, form: str, name: str, folder: Path) -> tuple[dict[str, Any], Any]:
        folder.mkdir()
        return {"loss_points": 0.0, "dev_loss_points": 5.0, "size_mb": 1.0}, lambda *_: np.zeros(1)

    monkeypatch.setattr(Int8Search, "_try", pretend)
    monkeypatch.setattr(int8_search, "race", lambda runs, *_: dict.fromkeys(runs, 1.0))
    names = RECIPES["openvino-int8"]
    search = Int8Search(tmp_path, TASK, [], lambda _: {}, 1.0, ROWS, 64, names, accuracy_control=wanted)
    assert set(search.run("openvino-int8")["tried"]) == {*names, *([CONTROLLED] if wanted else [])}


def test_dev_rows_choose_and_test_rows_report_and_refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # On dev and on test rows. The second recipe is faster, and loses less on the test rows, which do not choose.
    losses = {"static-smoothquant": (0.2, 3.0), "weight-only": (4.0, 0.1)}
    took = {"static-smoothquant": 1.0, "weight-only": 0.5}

    def pretend(self: Int8Search, form: str, name: str, folder: Path) -> tuple[dict[str, Any], Any]:
        folder.mkdir()
        dev, test = losses[name]
        found = {"loss_points": test, "dev_loss_points": dev, "loss_of": "macro-F1", "size_mb": 1.0}
        return found, lambda *_: np.zeros(1)

    monkeypatch.setattr(Int8Search, "_try", pretend)
    monkeypatch.setattr(int8_search, "race", lambda runs, *_: {name: took[name] for name in runs})
    found = Int8Search(tmp_path, TASK, [], lambda _: {}, 1.0, ROWS, 64, tuple(RECIPES["openvino-int8"])).run(
        "openvino-int8"
    )
    assert set(found["tried"]) == set(losses)  # the fallback is not needed
    assert (found["recipe"], found["loss_points"]) == ("static-smoothquant", 3.0)
    shown = {"latency_ms": 0.5, "loss_points": 0.1, "dev_loss_points": 4.0, "size_mb": 1.0}
    assert found["tried"]["weight-only"] == shown
    with pytest.raises(BoundError, match=r"loses 3.00 points of macro-F1 on the test half .*weight-only 0.10"):
        require_inside("openvino-int8", found, 1.0)


@pytest.mark.slow
def test_block_wise_outputs_do_not_depend_on_the_batch(tiny_teacher: Teacher, tmp_path: Path) -> None:
    with silence_exporters():
        write_onnx(load_model(open_checkpoint(str(tiny_teacher.path))), TASK, tmp_path / "f32")
        write_onnx_int8_blocks(tmp_path / "f32", tmp_path / "blocks")
        write_onnx_int8(tmp_path / "f32", tmp_path / "dynamic")
    moved = {}
    for name in ("blocks", "dynamic"):
        run = open_graph(tmp_path / name / QUANTIZED, "onnxruntime-int8", OUTPUT, 1)
        ids = np.array([ROWS[0] + [0] * 20, ROWS[5] + [0] * 10])
        mask = (ids != 0).astype(np.int64)
        together = run(ids, mask)[0, : len(ROWS[0])]
        alone = run(np.array([ROWS[0]]), np.ones((1, len(ROWS[0])), dtype=np.int64))[0]
        moved[name] = np.abs(together - alone).max()
    assert moved["blocks"] < 1e-5 < moved["dynamic"]


@pytest.mark.slow
def test_fused_attention_gives_nearly_the_same_outputs(tiny_teacher: Teacher, tmp_path: Path) -> None:
    model = load_model(open_checkpoint(str(tiny_teacher.path)))
    with silence_exporters():
        write_onnx(model, TASK, tmp_path / "f32")
        write_onnx_int8_attention(tmp_path / "f32", tmp_path / "attention")
    operators = [node.op_type for node in onnx.load(tmp_path / "attention" / QUANTIZED).graph.node]
    assert operators.count("QAttention") == model.config.num_hidden_layers
    assert "Softmax" not in operators
    run = open_graph(tmp_path / "attention" / QUANTIZED, "onnxruntime-int8", OUTPUT, 1)
    exact = open_graph(tmp_path / "f32" / "model.onnx", "onnxruntime-f32", OUTPUT, 1)
    for row in ROWS:  # padding at the start, in the middle and at the end is ignored
        ids = np.array([row, [0, 0, *row[:-3], 0], [*row[:2], 0, *row[2:-1]]])
        mask = (ids != 0).astype(np.int64)
        got, want = run(ids, mask)[mask.astype(bool)], exact(ids, mask)[mask.astype(bool)]
        assert np.corrcoef(got.ravel(), want.ravel())[0, 1] > 0.99


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recipes": ("none",)}, "recipes has none; allowed are static-smoothquant"),
        ({"recipes": ("static",)}, "recipes has none for onnxruntime-int8"),
        ({"forms": ()}, "forms has nothing; allowed are openvino-int8"),
        ({"forms": ("tensorrt",)}, "forms has tensorrt"),
        ({"max_loss_points": 0}, "max_loss_points"),
        ({"evaluation_texts": 5}, "evaluation_texts"),
    ],
)
def test_invalid_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ExportOptions(**options)


def test_labelled_texts_are_refused_for_a_model_without_a_head(
    tiny_teacher: Teacher, corpus: Corpus, tmp_path: Path, answers: Path
) -> None:
    with pytest.raises(UsageError, match="--evaluation is for models with a head"):
        run_export(tmp_path, tiny_teacher.path, "digest", corpus, ExportOptions(evaluation=answers))
