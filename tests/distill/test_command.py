"""The command `distill`: the plan, the output, and errors before any work."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import kdnas.distill.run as run
from kdnas.distill.options import DistillOptions
from kdnas.distill.run import run_distill
from kdnas.distill.student_folder import find_student
from kdnas.errors import UsageError
from kdnas.models.arch import Arch
from kdnas.models.folder import model_digest
from kdnas.models.teacher import Teacher
from kdnas.store.artifact import Artifact
from kdnas.text.corpus import Corpus

from .distill_fixture import ARCH, COMMON

DISTILL = DistillOptions(**COMMON)


@pytest.mark.slow
def test_minutes_become_steps_once(tmp_path: Path, tiny_teacher: Teacher, corpus: Corpus) -> None:
    options = DistillOptions(**{**COMMON, "steps": None, "minutes": 0.05, "validations": 1, "checkpoint_seconds": 60.0})
    artifact = run_distill(tmp_path, tiny_teacher, corpus, ARCH, options)
    plan = json.loads((artifact.path / "plan.json").read_text())
    assert plan["steps"] == artifact.results["steps"] >= 1
    assert plan["seconds_per_step"] > 0


@pytest.mark.slow
def test_resumed_run_uses_the_recorded_plan(
    tmp_path: Path, tiny_teacher: Teacher, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdnas.distill.step_budget.seconds_per_step", lambda *_, **__: 1e9)
    monkeypatch.setattr("kdnas.distill.fit.extended_steps", lambda *_: None)
    options = DistillOptions(**{**COMMON, "steps": None, "minutes": 1.0})
    with monkeypatch.context() as patch:
        patch.setattr("kdnas.distill.fit.run_alone", lambda *_: (_ for _ in ()).throw(RuntimeError("power cut")))
        with pytest.raises(RuntimeError, match="power cut"):
            run_distill(tmp_path, tiny_teacher, corpus, ARCH, options)
    monkeypatch.setattr("kdnas.distill.step_budget.seconds_per_step", lambda *_, **__: pytest.fail("measured again"))
    assert run_distill(tmp_path, tiny_teacher, corpus, ARCH, options).results["steps"] == 1


def test_student_deeper_than_its_teacher_is_rejected_before_any_work(
    tmp_path: Path, tiny_teacher: Teacher, corpus: Corpus
) -> None:
    with pytest.raises(UsageError, match="student has 6 layers, its teacher 4"):
        run_distill(tmp_path, tiny_teacher, corpus, Arch(6, 4, 48, 64), DISTILL)
    with pytest.raises(UsageError, match="student has 10 layers, its teacher 6"):
        run.distill(DISTILL, "10,12,288,384,gelu", home=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_command_prints_the_path(
    tmp_path: Path, tiny_teacher: Teacher, corpus_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = {**os.environ, "KDNAS_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "kdnas.cli", "distill", "--arch", "2,4,48,64,relu", "--teacher", tiny_teacher.path]
    command += ["--corpus", corpus_file, "--text.max_sentences", "300", "--steps", "2", "--batch-tokens", "256"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    artifact = Artifact.load(Path(done.stdout.splitlines()[-1]), "distill")
    assert artifact.results["arch"] == "2,4,48,64,relu"


@pytest.mark.slow
def test_distillation_continues_with_an_existing_student(tmp_path: Path, tiny_teacher: Teacher, corpus: Corpus) -> None:
    first = run_distill(tmp_path, tiny_teacher, corpus, ARCH, DISTILL)
    student = find_student(first.path)
    further = run_distill(tmp_path, tiny_teacher, corpus, ARCH, DISTILL, student)
    assert further.manifest["inputs"]["student"] == model_digest(first.path / "student")
    assert further.results["arch"] == str(ARCH)
    rows = [json.loads(line) for line in (further.path / "history.jsonl").read_text().splitlines()]
    start = next(row["validation_loss"] for row in rows if row["kind"] == "validation")
    # It starts near the end of the first run; the projections are fitted again to samples, which loses little.
    assert start < 1.1 * first.results["validation_loss"]
    assert further.results["validation_loss"] < first.results["validation_loss"]


def test_invalid_students_to_continue_with_are_rejected(tmp_path: Path, tiny_teacher: Teacher) -> None:
    for both in ({}, {"arch": str(ARCH), "student": tiny_teacher.path}):
        with pytest.raises(UsageError, match=r"give --arch for a new student, or --student .*not both"):
            run.distill(DISTILL, **both, home=tmp_path)
    with pytest.raises(UsageError, match=r"config.json is missing; give the folder that `kdnas distill` printed"):
        run.distill(DISTILL, student=tmp_path / "nowhere", home=tmp_path)
    other = Path(shutil.copytree(tiny_teacher.path, tmp_path / "other"))
    (other / "config.json").write_text(json.dumps(tiny_teacher.config | {"vocab_size": 99}))
    with pytest.raises(UsageError, match="has a vocabulary of 99, teacher 'builtin:minilm-l6' one of 30522"):
        run.distill(DISTILL, student=other, home=tmp_path / "home")
    assert not (tmp_path / "home").exists()
