"""A fine-tuning that is stopped at any update and resumed ends with the same weights and scores as an undisturbed one."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from kdnas.evaluation.finetune import Plan, Recipe, Trainer, finetune
from kdnas.evaluation.harness import RESULT, run_suites
from kdnas.evaluation.rows import Split
from kdnas.evaluation.suite_options import SuiteOptions
from kdnas.evaluation.tasks import Task
from kdnas.evaluation.tuning_state import TuningState
from kdnas.models.teacher import Teacher
from kdnas.store.progress import Stage, stage

RECIPE = Recipe([2e-3, 5e-4], seed=0, seq_len=16, batch_tokens=128)
PLAN = Plan(64, 3, 2, 20)
WORDS = (("terrible", "awful"), ("wonderful", "lovely"))


class StoppedError(Exception):
    """The run is killed."""


def toy(name: str, count: int) -> Split:
    labels = [number % 2 for number in range(count)]
    return Split([f"{name} {number} was {WORDS[label][number % 3 % 2]}" for number, label in enumerate(labels)], labels)


@pytest.fixture(scope="module")
def task() -> Task:
    return Task("toy", ["bad", "good"], toy("train", 64), toy("dev", 20), toy("test", 40), positive=1)


@pytest.fixture(scope="module")
def progress() -> Stage:
    with stage("test", 1) as handle:
        return handle


def digest(model: Any) -> str:
    found = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        found.update(name.encode() + value.numpy().tobytes())
    return found.hexdigest()


def stop_after(patch: pytest.MonkeyPatch, updates: int) -> list[int]:
    """Raise at the next update after `updates` of them, over all learning rates; returns a list with their number."""
    step, done = Trainer.step, [0]

    def counted(self: Trainer, *batch: Any) -> float:
        if done[0] == updates:
            raise StoppedError
        done[0] += 1
        return step(self, *batch)

    patch.setattr(Trainer, "step", counted)
    return done


@pytest.mark.slow
def test_a_killed_fine_tuning_resumes_exactly(
    tiny_teacher: Teacher, task: Task, progress: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        updates = stop_after(patch, -1)
        model, record = finetune(tiny_teacher.path, task, PLAN, RECIPE, progress)
    expected = digest(model)
    del record["seconds"]
    monkeypatch.setattr("kdnas.evaluation.tuning_state.CHECKPOINT_SECONDS", 0.0)  # after each update
    for stopped in (2, updates[0] // 2 + 3, updates[0] - 1):  # in the first epoch, and with the second learning rate
        folder = tmp_path / str(stopped)
        with monkeypatch.context() as patch:
            stop_after(patch, stopped)
            with pytest.raises(StoppedError):
                finetune(tiny_teacher.path, task, PLAN, RECIPE, progress, folder)
        torch.manual_seed(stopped)  # the random state of another process
        with monkeypatch.context() as patch:
            left = stop_after(patch, -1)
            model, found = finetune(tiny_teacher.path, task, PLAN, RECIPE, progress, folder)
        assert left[0] == updates[0] - stopped
        del found["seconds"]
        assert found == record
        assert digest(model) == expected


@pytest.mark.slow
def test_a_suite_keeps_its_plan_and_deletes_the_checkpoints(
    tiny_teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for split, count in {"train": 300, "validation": 40}.items():
        rows = toy(split, count)
        lines = [{"sentence": text, "label": label} for text, label in zip(rows.texts, rows.labels, strict=True)]
        (tmp_path / "glue/sst2").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"glue/sst2/{split}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    options = SuiteOptions(tmp_path, seeds=(0,), learning_rates=(2e-3,), epochs=2, max_minutes=0.2)
    with monkeypatch.context() as patch:
        patch.setattr("kdnas.evaluation.budget.MEASURE_SECONDS", 0.1)
        patch.setattr(TuningState, "attempt", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run_suites(tmp_path, str(tiny_teacher.path), ("glue/sst2",), options)
    (plan,) = tmp_path.glob("tuned/*.partial/plan.json")
    kept = json.loads(plan.read_text())["plan"]
    monkeypatch.setattr("kdnas.evaluation.budget.measured_speed", None)  # a resumed run measures nothing
    (artifact,) = run_suites(tmp_path, str(tiny_teacher.path), ("glue/sst2",), options)
    assert json.loads((artifact.path / RESULT).read_text())["plan"] == kept
    (tuned,) = tmp_path.glob("tuned/*/manifest.json")
    assert {file.name for file in tuned.parent.iterdir()} == {"manifest.json", "model"}


SETTINGS = {"recipe": [1e-3]}


def add(state: TuningState, score: float) -> None:
    state.add_score(0, 1e-3, score, {"weight": torch.full((2,), score)})


def test_the_best_weights_and_all_scores_are_read_again(tmp_path: Path) -> None:
    state = TuningState(tmp_path / "a", SETTINGS)
    for score in (0.5, 0.75, 0.625):
        add(state, score)
    again = TuningState(tmp_path / "a", SETTINGS)
    assert again.scores(0) == [0.5, 0.75, 0.625]
    assert again.best is not None
    assert (again.best.dev_score, again.best.best_epoch, again.best.learning_rate) == (0.75, 2, 1e-3)
    assert again.best.weights["weight"].tolist() == [0.75, 0.75]
    assert len(list((tmp_path / "a").glob("*.safetensors"))) == 1


def test_other_settings_or_damaged_weights_start_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add(TuningState(tmp_path / "a", SETTINGS), 0.5)
    assert TuningState(tmp_path / "a", {"recipe": [2e-3]}).scores(0) == []
    add(TuningState(tmp_path / "b", SETTINGS), 0.5)
    (weights,) = (tmp_path / "b").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1])
    again = TuningState(tmp_path / "b", SETTINGS)
    assert (again.scores(0), again.best) == ([], None)
    assert "missing or damaged; the fine-tuning starts over" in capsys.readouterr().err


def test_a_diverged_learning_rate_is_remembered(tmp_path: Path) -> None:
    TuningState(tmp_path / "a", SETTINGS).add_divergence(1)
    again = TuningState(tmp_path / "a", SETTINGS)
    assert again.diverged(1)
    assert not again.diverged(0)
