"""One new class is enough to add a kind of task: texts with several classes each are read, learnt and scored."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kdnas.evaluation.data import load_task
from kdnas.evaluation.finetune import Plan, Recipe, finetune
from kdnas.evaluation.kinds import TaskKind
from kdnas.evaluation.kinds.base import class_names
from kdnas.evaluation.report import card
from kdnas.evaluation.spec import Source, Spec
from kdnas.export.session import BATCH_TOKENS
from kdnas.export.spans import Runs, text_logits
from kdnas.models.teacher import Teacher
from kdnas.store.progress import stage


class ManyClasses(TaskKind):
    """Labels and predictions (N, C) are 1 for each class that applies, else 0."""

    name = "many-classes"
    head = "AutoModelForSequenceClassification"
    export_task = "text-classification"
    score_names = ("micro_f1",)

    def read_label(
        self, value: Any, labels: Sequence[str], numbers: Mapping[str, int], otherwise: int | None
    ) -> tuple[int, ...]:
        return tuple(int(label in value) for label in labels)

    def target(self, encoding: Any, label: Any) -> np.ndarray:
        return np.asarray(label, dtype=np.float32)

    def head_settings(self, labels: Sequence[str]) -> dict[str, Any]:
        return {**class_names(labels), "problem_type": "multi_label_classification"}

    def loss(self, output: Any, targets: Any) -> Any:
        return torch.nn.functional.binary_cross_entropy_with_logits(output.logits.float(), targets)

    def predict(self, runs: Runs, texts: Sequence[Any], batch_tokens: int = BATCH_TOKENS) -> np.ndarray:
        return (text_logits(runs, texts, batch_tokens) > 0).astype(np.int64)

    def features(self) -> dict[str, Any]:
        from datasets import Sequence as Many
        from datasets import Value

        return {"predictions": Many(Value("int64")), "references": Many(Value("int64"))}

    def scores(self, truth: Any, predicted: Any, labels: Sequence[str], positive: int | None) -> dict[str, float]:
        right, said = np.asarray(truth), np.asarray(predicted)
        return {"micro_f1": float(2 * (right * said).sum() / (right.sum() + said.sum()))}


@pytest.mark.slow
def test_a_new_kind_is_read_learnt_and_scored(tiny_teacher: Teacher, tmp_path: Path) -> None:
    words = ("red", "green", "the", "of")
    labels = ("RED", "GREEN")
    rng = np.random.default_rng(0)
    folder = tmp_path / "colours"
    folder.mkdir()
    for split, count in (("train", 440), ("validation", 60)):
        rows = []
        for _ in range(count):
            chosen = rng.choice(words, 6).tolist()
            rows.append({"text": " ".join(chosen), "tags": [word.upper() for word in chosen if word.upper() in labels]})
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    spec = Spec(
        "toy/colours", Source("", "colours"), ("text",), "tags", ManyClasses(), labels, "micro_f1", 2e-3, 5, seq_len=32
    )
    task = load_task(spec, tmp_path).task
    with stage("test", 1) as progress:
        recipe = Recipe([2e-3], seed=0, seq_len=32, batch_tokens=256)
        model, record = finetune(tiny_teacher.path, task, Plan(len(task.train), 5, 1, 40), recipe, progress)
    assert record["micro_f1"] > 0.9
    assert model.config.id2label == {0: "RED", 1: "GREEN"}
    assert f"| micro f1 | {record['micro_f1']:.4f} |" in card(task, record, tiny_teacher.path)
