"""What a run of distilling plans, prints and refuses before any work."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import kdnas.distill.run as run
from kdnas.arch import Arch
from kdnas.artifact import Artifact
from kdnas.corpus import Corpus
from kdnas.distill.options import DistillOptions
from kdnas.distill.run import run_distill
from kdnas.errors import UsageError
from kdnas.teacher import Teacher

from .distill_fixture import ARCH, COMMON

DISTILL = DistillOptions(**COMMON)


def test_minutes_become_steps_once(tmp_path: Path, tiny_teacher: Teacher, corpus: Corpus) -> None:
    options = DistillOptions(**{**COMMON, "steps": None, "minutes": 0.05, "validations": 1, "checkpoint_seconds": 60.0})
    artifact = run_distill(tmp_path, tiny_teacher, corpus, ARCH, options)
    plan = json.loads((artifact.path / "plan.json").read_text())
    assert plan["steps"] == artifact.results["steps"] >= 1
    assert plan["seconds_per_step"] > 0


def test_a_kept_plan_decides(
    tmp_path: Path, tiny_teacher: Teacher, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdnas.distill.step_budget.seconds_per_step", lambda *_, **__: 1e9)
    monkeypatch.setattr("kdnas.distill.fit.extended_steps", lambda *_: None)
    options = DistillOptions(**{**COMMON, "steps": None, "minutes": 1.0})
    with monkeypatch.context() as patch:
        patch.setattr("kdnas.distill.fit.train", lambda *_: (_ for _ in ()).throw(RuntimeError("power cut")))
        with pytest.raises(RuntimeError, match="power cut"):
            run_distill(tmp_path, tiny_teacher, corpus, ARCH, options)
    monkeypatch.setattr("kdnas.distill.step_budget.seconds_per_step", lambda *_, **__: pytest.fail("measured again"))
    assert run_distill(tmp_path, tiny_teacher, corpus, ARCH, options).results["steps"] == 1


def test_a_student_deeper_than_its_teacher_is_refused_before_any_work(
    tmp_path: Path, tiny_teacher: Teacher, corpus: Corpus
) -> None:
    with pytest.raises(UsageError, match="student has 6 layers, its teacher 4"):
        run_distill(tmp_path, tiny_teacher, corpus, Arch(6, 4, 48, 64), DISTILL)
    with pytest.raises(UsageError, match="student has 10 layers, its teacher 6"):
        run.distill(DISTILL, "10,12,288,384,gelu", home=tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_command_prints_the_path(
    tmp_path: Path, tiny_teacher: Teacher, corpus_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = {**os.environ, "KDNAS_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "kdnas.cli", "distill", "--arch", "2,4,48,64,relu", "--teacher", tiny_teacher.path]
    command += ["--corpus", corpus_file, "--text.max_sentences", "300", "--steps", "2", "--batch-tokens", "256"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    artifact = Artifact.load(Path(done.stdout.splitlines()[-1]), "distill")
    assert artifact.results["arch"] == "2,4,48,64,relu"
