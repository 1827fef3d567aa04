"""Conversion of minutes to updates, and extension if a disturbed measurement planned too few."""

import json
from pathlib import Path

import pytest

import kdnas.distill.step_budget as step_budget
from kdnas.distill.checkpoint import Position
from kdnas.distill.options import DistillOptions
from kdnas.distill.run import run_distill
from kdnas.distill.step_budget import PLAN, USED, extended_steps
from kdnas.models.arch import Arch
from kdnas.models.teacher import Teacher
from kdnas.store.json_files import read_jsonl
from kdnas.text.corpus import Corpus

OPTIONS = DistillOptions(minutes=6)


def test_training_is_extended_if_most_of_the_minutes_are_left(tmp_path: Path) -> None:
    position = Position(step=10, seconds=10.0)
    (tmp_path / PLAN).write_text(json.dumps({"steps": 10, "seconds_per_step": 6.0}))
    assert extended_steps(tmp_path, OPTIONS, position, 60.0) == 10 + int(USED * 300)
    plan = json.loads((tmp_path / PLAN).read_text())
    assert plan == {"steps": 10 + int(USED * 300), "seconds_per_step": 6.0, "extended_from": 10}


def test_time_of_earlier_attempts_is_counted(tmp_path: Path) -> None:
    assert extended_steps(tmp_path, OPTIONS, Position(step=100, seconds=300.0), 1.0) is None
    assert not (tmp_path / PLAN).exists()


def test_good_plan_and_given_steps_are_not_extended(tmp_path: Path) -> None:
    assert extended_steps(tmp_path, OPTIONS, Position(step=250, seconds=250.0), 300.0) is None
    assert extended_steps(tmp_path, DistillOptions(minutes=6, steps=10), Position(step=10, seconds=1.0), 2.0) is None


@pytest.mark.slow
def test_stage_uses_its_minutes_after_a_disturbed_measurement(
    tmp_path: Path, tiny_teacher: Teacher, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_budget, "seconds_per_step", lambda *args, **more: 3.0)  # 100 times the real value
    options = DistillOptions(minutes=0.2, batch_tokens=512, validations=2, validation_sentences=60, log_every=4)
    artifact = run_distill(tmp_path, tiny_teacher, corpus, Arch(2, 4, 24, 64), options)
    rows = read_jsonl(artifact.path / "history.jsonl")
    assert artifact.results["steps"] > 3 * 4  # at most 4 were planned
    assert rows[-1]["kind"] == "validation"
    assert rows[-1]["step"] == artifact.results["steps"]
    rates = [row["lr"] for row in rows if row["kind"] == "train"]
    assert max(rates[1:]) > rates[0]  # the learning rate rose again
