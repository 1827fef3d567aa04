"""Distillation and refinement with a tiny teacher: killed and resumed runs, the artifact, invalid input."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModel, AutoTokenizer

import kdnas.distill.loop as loop
import kdnas.distill.saver as saver
from kdnas.distill import loaded_teacher
from kdnas.distill.checkpoint import FOLDER, save_checkpoint
from kdnas.distill.history import Log
from kdnas.distill.options import DistillOptions, RefineOptions
from kdnas.distill.run import run_distill, run_refine
from kdnas.distill.student_folder import find_student
from kdnas.errors import KdnasError, Terminated, UsageError
from kdnas.models.folder import model_digest
from kdnas.models.teacher import Teacher
from kdnas.store.artifact import Artifact
from kdnas.store.json_files import read_jsonl
from kdnas.text.corpus import Corpus

from .distill_fixture import ARCH, COMMON, STEPS, assert_same_run

pytestmark = pytest.mark.slow


DISTILL = DistillOptions(**COMMON)
REFINE = RefineOptions(**COMMON)

CHILD = """
import json, os, signal, sys
from pathlib import Path
from kdnas.models.arch import Arch
from kdnas.store.artifact import Artifact
from kdnas.text.corpus import Corpus
from kdnas.distill import checkpoint, loaded_teacher
from kdnas.distill.options import DistillOptions
from kdnas.distill.run import run_distill
from kdnas.models.teacher import resolve_teacher

home, teacher, corpus, options, kill_at, sentences = sys.argv[1:]
loaded_teacher.SAMPLE_SENTENCES = int(sentences)
if int(kill_at):  # die with the weights of this step on disk and the checkpoint not yet renamed
    rename = checkpoint.os.rename
    def dying(source, target):
        if f"{int(kill_at):09d}" in str(target):
            os.kill(os.getpid(), signal.SIGKILL)
        rename(source, target)
    checkpoint.os.rename = dying
artifact = Artifact.load(Path(corpus))
options = DistillOptions(**json.loads(options))
run_distill(Path(home), resolve_teacher(teacher), Corpus(artifact, 0), Arch(2, 4, 24, 64), options)
"""


@pytest.fixture(scope="module")
def whole(home: Path, tiny_teacher: Teacher, corpus: Corpus) -> Artifact:
    """An uninterrupted run."""
    return run_distill(home / "whole", tiny_teacher, corpus, ARCH, DISTILL)


def child(home: Path, teacher: Teacher, corpus: Corpus, kill_at: int) -> subprocess.Popen[bytes]:
    arguments = [
        str(home),
        str(teacher.path),
        str(corpus.artifact.path),
        json.dumps({**COMMON, "data_workers": 2}),
        str(kill_at),
        str(loaded_teacher.SAMPLE_SENTENCES),
    ]
    return subprocess.Popen([sys.executable, "-c", CHILD, *arguments], stderr=subprocess.DEVNULL)


def test_run_that_was_killed_twice_is_bit_identical(
    tmp_path: Path, tiny_teacher: Teacher, corpus: Corpus, whole: Artifact
) -> None:
    first = child(tmp_path, tiny_teacher, corpus, 0)
    until = time.monotonic() + 120
    while not list(tmp_path.glob(f"distill/*.partial/{FOLDER}/step-*[3-9]")):
        assert first.poll() is None, "finished before it could be killed"
        assert time.monotonic() < until
        time.sleep(0.005)
    first.send_signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    second = child(tmp_path, tiny_teacher, corpus, STEPS - 2)
    assert second.wait(120) == -signal.SIGKILL
    partial = next(tmp_path.glob("distill/*.partial"))
    assert (partial / FOLDER / "writing").is_dir()
    resumed = run_distill(tmp_path, tiny_teacher, corpus, ARCH, DISTILL)
    assert resumed.manifest["attempts"] == 3
    assert_same_run(whole, resumed)


@pytest.mark.parametrize("error", [Terminated, KeyboardInterrupt])
def test_signal_during_a_step_saves_a_checkpoint_first(
    tmp_path: Path,
    tiny_teacher: Teacher,
    corpus: Corpus,
    whole: Artifact,
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
) -> None:
    options = DistillOptions(**{**COMMON, "checkpoint_seconds": 1e6})
    real, calls = loop.backward, []

    def interrupted(*arguments: object) -> torch.Tensor:
        calls.append(1)
        losses = real(*arguments)
        if len(calls) == 8:
            raise error
        return losses

    monkeypatch.setattr(loop, "backward", interrupted)
    with pytest.raises(error):
        run_distill(tmp_path, tiny_teacher, corpus, ARCH, options)
    # Three updates, of two batches each.
    assert [path.name for path in tmp_path.glob(f"distill/*.partial/{FOLDER}/*")] == ["step-000000003"]
    assert_same_run(whole, run_distill(tmp_path, tiny_teacher, corpus, ARCH, options))
    assert len(calls) == 8 + 2 * (STEPS - 3)


def test_signal_between_update_and_position_keeps_the_previous_checkpoint(
    tmp_path: Path, tiny_teacher: Teacher, corpus: Corpus, whole: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = loop.update, []

    def interrupted(*arguments: object) -> torch.Tensor:
        calls.append(1)
        norm = real(*arguments)
        if len(calls) == 8:
            raise Terminated
        return norm

    monkeypatch.setattr(loop, "update", interrupted)
    with pytest.raises(Terminated):
        run_distill(tmp_path, tiny_teacher, corpus, ARCH, DISTILL)
    assert_same_run(whole, run_distill(tmp_path, tiny_teacher, corpus, ARCH, DISTILL))
    assert len(calls) == 8 + STEPS - 7


def test_damaged_newest_checkpoint_loses_only_its_step(
    tmp_path: Path, tiny_teacher: Teacher, corpus: Corpus, whole: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopping(folder: Path, *rest: object) -> None:
        save_checkpoint(folder, *rest)
        if rest[-1].step == 10:
            file = folder / FOLDER / "step-000000010" / "state.safetensors"
            file.write_bytes(file.read_bytes()[:-1] + b"?")
            raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(saver, "save_checkpoint", stopping)
        with pytest.raises(RuntimeError, match="power cut"):
            run_distill(tmp_path, tiny_teacher, corpus, ARCH, DISTILL)
    assert_same_run(whole, run_distill(tmp_path, tiny_teacher, corpus, ARCH, DISTILL))


def test_run_killed_before_publication_repeats_no_work(
    tmp_path: Path, tiny_teacher: Teacher, corpus: Corpus, whole: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(
            "kdnas.distill.fit.remove_checkpoints", lambda _: (_ for _ in ()).throw(RuntimeError("power cut"))
        )
        with pytest.raises(RuntimeError, match="power cut"):
            run_distill(tmp_path, tiny_teacher, corpus, ARCH, DISTILL)
    monkeypatch.setattr("kdnas.distill.stages.LoadedTeacher", lambda *_: pytest.fail("worked again"))
    published = run_distill(tmp_path, tiny_teacher, corpus, ARCH, DISTILL)
    assert_same_run(whole, published)
    assert published.results["steps"] == STEPS
    assert not (published.path / FOLDER).exists()


def test_files_and_results_of_the_artifact(whole: Artifact, tiny_teacher: Teacher) -> None:
    whole.verify()
    assert {name.split("/")[0] for name in whole.manifest["files"]} == {
        "history.jsonl", "plan.json", "projections.safetensors", "results.json", "student",
    }  # fmt: skip
    results = whole.results
    assert (results["arch"], results["objective"], results["steps"]) == (str(ARCH), "hidden-state", STEPS)
    assert results["teacher_layers_used"] == [1, 3, 4]
    assert set(results["explained_variance_layers"]) == {"1", "2"}
    assert results["explained_variance"] == pytest.approx(1 - results["validation_loss"])
    rows = read_jsonl(whole.path / "history.jsonl")
    assert [row["step"] for row in rows if row["kind"] == "validation"] == [0, 5, 10, 15]
    assert [row["step"] for row in rows if row["kind"] == "train"] == [4, 8, 12, 15]
    losses = [row["validation_loss"] for row in rows if row["kind"] == "validation"]
    assert losses[-1] < losses[0]
    with safe_open(whole.path / "projections.safetensors", "pt") as file:
        assert file.get_tensor("projections.0.weight").shape == (96, 24)


def test_student_folder_loads_with_transformers(whole: Artifact, tiny_teacher: Teacher) -> None:
    folder = whole.path / "student"
    model, info = AutoModel.from_pretrained(folder, add_pooling_layer=False, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert set(file.keys()) == set(model.state_dict())
    assert type(model).__name__ == "BertModel"
    assert model.config.hidden_dropout_prob == 0.1
    batch = AutoTokenizer.from_pretrained(folder)("A short sentence.", return_tensors="pt")
    assert model(**batch).last_hidden_state.shape[-1] == ARCH.hidden
    card = (folder / "README.md").read_text()
    assert str(ARCH) in card
    assert "AutoModel.from_pretrained" in card
    assert f"{whole.results['explained_variance']:.3f}" in card


@pytest.mark.parametrize(("weight", "objective"), [(0.0, "minilm-v2"), (4.0, "hidden-state+minilm-v2")])
def test_refine_resumes_bit_identically_and_publishes_results(
    tmp_path: Path,
    tiny_teacher: Teacher,
    corpus: Corpus,
    whole: Artifact,
    monkeypatch: pytest.MonkeyPatch,
    weight: float,
    objective: str,
) -> None:
    student, digest = find_student(whole.path)
    options = replace(REFINE, hidden_state_weight=weight)
    expected = run_refine(tmp_path / "a", tiny_teacher, corpus, student, digest, options)
    with monkeypatch.context() as patch:
        patch.setattr(Log, "write_loss", lambda _log, at, *_: (_ for _ in ()).throw(RuntimeError(str(at.step))))
        with pytest.raises(RuntimeError, match=r"^4$"):
            run_refine(tmp_path / "b", tiny_teacher, corpus, student, digest, options)
    assert_same_run(expected, run_refine(tmp_path / "b", tiny_teacher, corpus, student, digest, options))
    results = expected.results
    assert (results["objective"], results["teacher_layers_used"], results["relation_heads"]) == (objective, [3], 24)
    assert results["explained_variance"] is None
    assert list(results["explained_variance_layers"]) == ([str(ARCH.layers)] if weight else [])
    rows = [row for row in read_jsonl(expected.path / "history.jsonl") if row["kind"] == "validation"]
    if weight:
        assert rows[-1]["layers"]["2"] > rows[0]["layers"]["2"]
    else:
        assert rows[-1]["validation_loss"] < rows[0]["validation_loss"]
    assert set(rows[0]["relations"]) == {"QQ", "KK", "VV"}
    assert find_student(expected.path)[1] == model_digest(expected.path / "student")


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_divergence_keeps_the_previous_state(
    tmp_path: Path, tiny_teacher: Teacher, corpus: Corpus, whole: Artifact, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    real, calls = loop.backward, []

    def diverging(objective: torch.nn.Module, *arguments: object) -> torch.Tensor:
        calls.append(1)
        losses = real(objective, *arguments)
        if len(calls) < 8:
            return losses
        if where == "loss":
            return losses * float("nan")
        next(one for one in objective.parameters() if one.grad is not None).grad.fill_(float("inf"))
        return losses

    options = replace(DISTILL, checkpoint_seconds=1e6)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "backward", diverging)
        with pytest.raises(
            KdnasError, match=r"at step 4, batch 7 of epoch 0: training diverged; the state before it is kept"
        ):
            run_distill(tmp_path, tiny_teacher, corpus, ARCH, options)
    [checkpoint] = tmp_path.glob(f"distill/*.partial/{FOLDER}/step-*")
    assert checkpoint.name == "step-000000003"
    assert_same_run(whole, run_distill(tmp_path, tiny_teacher, corpus, ARCH, options))


def test_tensorboard_receives_the_rows(tmp_path: Path, tiny_teacher: Teacher, corpus: Corpus, whole: Artifact) -> None:
    artifact = run_distill(tmp_path, tiny_teacher, corpus, ARCH, replace(DISTILL, trackers=("tensorboard",)))
    events = b"".join(file.read_bytes() for file in artifact.path.glob("trackers/distil/**/events*"))
    for name in (b"train/loss", b"train/lr", b"validation/explained_variance", b"validation/layers/2"):
        assert name in events
    assert_same_run(whole, artifact)


@pytest.mark.parametrize(
    ("name", "message"), [("paper", "allowed are tensorboard, mlflow"), ("mlflow", "run: pip install mlflow")]
)
def test_unknown_and_missing_trackers_are_rejected(
    tmp_path: Path, tiny_teacher: Teacher, corpus: Corpus, name: str, message: str
) -> None:
    with pytest.raises(KdnasError, match=message):
        run_distill(tmp_path, tiny_teacher, corpus, ARCH, replace(DISTILL, trackers=(name,)))
    assert not list(tmp_path.iterdir())


def test_distillation_with_relations(tmp_path: Path, tiny_teacher: Teacher, corpus: Corpus) -> None:
    options = replace(DISTILL, relation_weight=0.5, relations=("QK", "VV"), relation_heads=4, teacher_layer=4)
    artifact = run_distill(tmp_path, tiny_teacher, corpus, ARCH, options)
    assert artifact.results["objective"] == "hidden-state+minilm-v2"
    rows = [row for row in read_jsonl(artifact.path / "history.jsonl") if row["kind"] == "validation"]
    assert rows[-1]["explained_variance"] > rows[0]["explained_variance"]
    for name in ("QK", "VV"):
        assert rows[-1]["relations"][name] < rows[0]["relations"][name]
    with pytest.raises(UsageError, match="relation_heads is 5"):
        run_distill(tmp_path, tiny_teacher, corpus, ARCH, replace(options, relation_heads=5))


def test_raw_loss_reports_explained_variance(
    tmp_path: Path, tiny_teacher: Teacher, corpus: Corpus, whole: Artifact
) -> None:
    raw = run_distill(
        tmp_path, tiny_teacher, corpus, ARCH, DistillOptions(**{**COMMON, "steps": 1, "loss_scale": "mean"})
    )
    rows = {
        name: next(row for row in read_jsonl(artifact.path / "history.jsonl") if row["step"] == 0)
        for name, artifact in (("raw", raw), ("normalised", whole))
    }
    assert rows["raw"]["explained_variance"] == pytest.approx(rows["normalised"]["explained_variance"], rel=1e-5)
    assert rows["raw"]["validation_loss"] != pytest.approx(rows["normalised"]["validation_loss"], rel=1e-3)


def test_invalid_students_are_rejected(tmp_path: Path, tiny_teacher: Teacher, corpus: Corpus, whole: Artifact) -> None:
    with pytest.raises(UsageError, match=r"config.json is missing; give the folder that `kdnas distill` printed"):
        find_student(tmp_path)
    with pytest.raises(UsageError, match="a 'corpus' artifact"):
        find_student(corpus.artifact.path)
    student = whole.path / "student"
    assert find_student(whole.path) == find_student(student) == (student, model_digest(student))
    with pytest.raises(UsageError, match=r"relation_heads is 7.*valid counts"):
        run_refine(tmp_path, tiny_teacher, corpus, student, "x", RefineOptions(relation_heads=7))
    with pytest.raises(UsageError, match="teacher_layer is 9"):
        run_refine(tmp_path, tiny_teacher, corpus, student, "x", RefineOptions(teacher_layer=9))
    other = Teacher("other", tiny_teacher.path, {**tiny_teacher.config, "vocab_size": 9}, "x")
    with pytest.raises(UsageError, match="vocabulary"):
        run_refine(tmp_path, other, corpus, student, "x", REFINE)
