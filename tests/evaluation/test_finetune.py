"""Fine-tuning on a separable toy task: the model learns it, is saved, and loads with the same logits."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from kdnas.errors import KdnasError
from kdnas.evaluation.averages import scored
from kdnas.evaluation.budget import measured_speed
from kdnas.evaluation.encoded import load_head
from kdnas.evaluation.finetune import Plan, Recipe, Trainer, as_run, finetune, save_classifier, tune
from kdnas.evaluation.kinds import CLASSES
from kdnas.evaluation.rows import Split
from kdnas.evaluation.tasks import Task
from kdnas.models.teacher import Teacher
from kdnas.store.progress import Stage, stage

pytestmark = pytest.mark.slow


RECIPE = Recipe([2e-3, 1e-6], seed=0, seq_len=32, batch_tokens=512)
WORDS = (("poor", "wrong", "lost"), ("great", "happy", "perfect"))
THINGS = ("food", "film", "hotel", "book", "road", "garden", "song", "phone")


def toy(name: str, count: int) -> Split:
    labels = [number % 2 for number in range(count)]
    texts = [
        f"{name} {number}: the {THINGS[number % 8]} was {WORDS[label][number % 3]} again"
        for number, label in enumerate(labels)
    ]
    return Split(texts, labels)


@pytest.fixture(scope="module")
def task() -> Task:
    return Task("toy", ["bad", "good"], toy("train", 320), toy("dev", 60), toy("test", 80), positive=1, notes="toy")


@pytest.fixture(scope="module")
def progress() -> Stage:
    with stage("test", 1) as handle:
        return handle


@pytest.fixture(scope="module")
def tuned(tiny_teacher: Teacher, task: Task, progress: Stage) -> tuple[object, dict[str, object]]:
    return finetune(tiny_teacher.path, task, Plan(320, 4, 2, 60), RECIPE, progress)


def test_a_separable_task_is_learnt(tuned: tuple[object, dict[str, object]]) -> None:
    record = tuned[1]
    assert record["macro_f1"] > 0.97
    assert record["average_precision"] > 0.97
    assert record["false_positive_rate"] < 0.05
    assert (record["train_examples"], record["dev_examples"], record["test_examples"]) == (320, 60, 80)


def test_the_learning_rate_is_chosen_on_dev(tuned: tuple[object, dict[str, object]]) -> None:
    record = tuned[1]
    assert [run["learning_rate"] for run in record["tried"]] == RECIPE.learning_rates
    best = [max(run["dev_scores"]) for run in record["tried"]]
    assert best[0] > 0.9 > best[1]  # a rate of 1e-6 learns nothing in 4 epochs
    assert record["learning_rate"] == 2e-3
    scores = record["tried"][0]["dev_scores"]
    assert record["best_epoch"] == 1 + scores.index(max(scores))


def test_a_saved_folder_loads_with_the_same_logits(
    tuned: tuple[object, dict[str, object]], task: Task, tiny_teacher: Teacher, tmp_path: Path
) -> None:
    folder = tmp_path / "classifier"
    save_classifier(tuned[0], tiny_teacher.path, folder, "# card\n")
    model = AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    batch = tokenizer(task.test.texts[:8], padding=True, truncation=True, max_length=32, return_tensors="pt")
    with torch.inference_mode():
        loaded, trained = model(**batch).logits, tuned[0](**batch).logits
    assert torch.equal(loaded, trained)
    assert model.config.id2label == {0: "bad", 1: "good"}
    assert model.config.label2id == {"bad": 0, "good": 1}
    assert not list(folder.glob("*.bin"))
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= {
        file.name for file in folder.iterdir()
    }
    assert json.loads((folder / "config.json").read_text())["model_type"] == "bert"
    own = CLASSES.predict(as_run(model, CLASSES, folder, 32), task.test.texts, 256)[:8]
    assert np.allclose(own, torch.softmax(loaded, -1), atol=1e-5)


def test_the_same_seed_gives_the_same_result(tiny_teacher: Teacher, task: Task, progress: Stage) -> None:
    plan = Plan(64, 1, 1, 20)
    runs = []
    for seed in (0, 0, 1):
        torch.manual_seed(100 + len(runs))  # the earlier random state must not matter
        recipe = Recipe([1e-3], seed, 32, 256)
        model, _ = finetune(tiny_teacher.path, task, plan, recipe, progress)
        runs.append(model.classifier.weight.detach())
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_predictions_do_not_depend_on_batches(tiny_teacher: Teacher, task: Task) -> None:
    model = load_head(tiny_teacher.path, CLASSES, task.labels, seed=0)
    texts = ["a", "a much longer sentence than the others are " * 2, "two words"] * 5
    runs = as_run(model, CLASSES, tiny_teacher.path, 32)
    together, alone = CLASSES.predict(runs, texts, 100_000), CLASSES.predict(runs, texts, 8)
    assert together == pytest.approx(alone, abs=1e-5)
    assert together.sum(1) == pytest.approx(1)


def test_divergence_raises_an_error(
    tiny_teacher: Teacher, task: Task, progress: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "step", lambda *_: float("nan"))
    with pytest.raises(KdnasError, match="not finite with any of"):
        finetune(tiny_teacher.path, task, Plan(64, 1, 1, 20), RECIPE, progress)


def test_measuring_throughput_does_not_change_the_random_state(
    tiny_teacher: Teacher, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdnas.evaluation.budget.MEASURE_SECONDS", 0.1)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    speed = measured_speed(tiny_teacher.path, task, 0, 32, 512)
    assert min(speed.train, speed.score) > 1
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_checkpoint_is_chosen_by_the_mean_over_the_languages(
    tiny_teacher: Teacher, task: Task, progress: Stage
) -> None:
    dev = toy("dev", 60)
    wrong = toy("dev", 6)  # a language with few rows, all of which have the other label
    several = Split(dev.texts + wrong.texts, dev.labels + [1 - label for label in wrong.labels], ["a"] * 60 + ["b"] * 6)
    given = replace(task, dev=several)
    model, record = tune(tiny_teacher.path, given, Plan(320, 2, 1, 100), RECIPE, progress)
    predicted = CLASSES.predict(as_run(model, CLASSES, tiny_teacher.path, 32), several.texts)
    found = scored(given, several, predicted)
    assert record["dev_score"] == pytest.approx(found["language_means"]["macro_f1"])
    assert record["dev_score"] < found["scores"]["macro_f1"] - 0.2
    assert record["chosen_by"] == "macro_f1 on dev (mean over languages), over learning rates and epochs"
