"""One identity per model: commands find what the pipeline built from the same files and repeat no work."""

import shutil
import time
from inspect import signature
from pathlib import Path

import pytest
import yaml

from kdnas.distill.options import DistillOptions, RefineOptions
from kdnas.distill.student_folder import find_student
from kdnas.evaluation.harness import resolve_model
from kdnas.evaluation.options import EvaluationOptions
from kdnas.evaluation.run import evaluate, resolve_student
from kdnas.export.checkpoint import open_checkpoint
from kdnas.export.options import ExportOptions
from kdnas.export.run import export
from kdnas.latency.speed import speed
from kdnas.models.arch import Arch
from kdnas.models.folder import model_digest
from kdnas.models.teacher import Teacher, resolve_teacher
from kdnas.pipeline.stages import PipelineRun, pipeline, publish, ship_student, train_student
from kdnas.text.corpus import build_corpus
from kdnas.text.readers import TextOptions

pytestmark = pytest.mark.slow


TEXT = TextOptions(topic="topic", group="group", seq_len=64, validation_fraction=0.2, max_sentences=1500)
TRAINING = {"steps": 2, "batch_tokens": 256, "validations": 1, "validation_sentences": 32}
EXPORT = ExportOptions(calibration_sentences=16, parity_sentences=16, forms=("onnxruntime-f32",))
EVALUATION = EvaluationOptions(
    minutes=0.2, epochs=1, sentences=100, map_sentences=100, topics=2, topic_train=40, topic_test=20
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_teacher: Teacher, corpus_file: Path) -> PipelineRun:
    """The stages of a pipeline from distillation on, and their published outputs."""
    home = tmp_path_factory.mktemp("identity")
    corpus = build_corpus(home, str(corpus_file), TEXT, tiny_teacher)
    run = PipelineRun(home, tiny_teacher, corpus, time.monotonic(), {"corpus": corpus.artifact})
    refined = train_student(run, Arch(2, 4, 48, 64), DistillOptions(**TRAINING), RefineOptions(**TRAINING))
    ship_student(run, refined, EXPORT, EVALUATION)
    publish(run)
    return run


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Building a corpus, an export or an evaluation fails the test."""

    def fail(*_: object) -> None:
        raise AssertionError("finished work was done again")

    for target in ("text.corpus._work", "export.making.Making.work", "evaluation.evaluating.Evaluation.work"):
        monkeypatch.setattr(f"kdnas.{target}", fail)


def test_commands_find_the_pipelines_artifacts(run: PipelineRun, corpus_file: Path, no_work: None) -> None:
    student, source = run.home / "latest" / "student", str(corpus_file)
    assert export(str(student), EXPORT, source, TEXT, run.home).path == run.artifacts["export"].path
    judged = evaluate(student, EVALUATION, run.teacher.spec, source, TEXT, run.home)
    assert judged.path == run.artifacts["evaluation"].path
    classifier = run.artifacts["evaluation"].path / "classifiers" / "topic"
    if "classifier" in run.artifacts:
        found = run.artifacts["classifier"].manifest["inputs"]["model"]
        assert found == model_digest(classifier)


def test_a_copy_in_another_folder_is_the_same_model(
    run: PipelineRun, corpus_file: Path, tmp_path: Path, no_work: None
) -> None:
    copy = Path(shutil.copytree(run.home / "latest" / "student", tmp_path / "moved"))
    found = export(str(copy), EXPORT, str(corpus_file), TEXT, run.home)
    assert found.path == run.artifacts["export"].path
    (copy / "config.json").write_text((copy / "config.json").read_text() + " ")
    assert model_digest(copy) != run.artifacts["export"].manifest["inputs"]["model"]


def test_all_commands_compute_the_same_digest(run: PipelineRun) -> None:
    student = run.artifacts["refine"].path / "student"
    digest = model_digest(student)
    assert find_student(run.home / "latest" / "student") == (run.home / "latest" / "student", digest)
    assert find_student(student)[1] == resolve_student(student)[1] == resolve_model(str(student))[1] == digest
    assert open_checkpoint(str(student)).digest == resolve_teacher(str(student)).digest == digest
    for name, role in (("export", "model"), ("evaluation", "student")):
        assert run.artifacts[name].manifest["inputs"][role] == digest
    first = run.artifacts["distill"].path / "student"
    assert run.artifacts["refine"].manifest["inputs"]["student"] == model_digest(first)


def test_pipeline_and_commands_share_their_defaults() -> None:
    stages = signature(pipeline).parameters
    for command, name in ((export, "export"), (evaluate, "evaluation"), (speed, "speed")):
        parameters = signature(command).parameters
        assert stages[name].default == parameters["options"].default
        for shared in ("corpus", "text", "home"):
            assert stages[shared].default == parameters[shared].default
    config = yaml.safe_load((Path(__file__).parents[2] / "configs" / "offline.yaml").read_text())
    assert not {"text", "export", "evaluation", "speed"} & set(config)
