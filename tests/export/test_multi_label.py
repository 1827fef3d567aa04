"""Classifiers with independent labels: sigmoid probabilities as in `transformers`, in every form, session and score."""

import json
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoModelForSequenceClassification, AutoTokenizer, TextClassificationPipeline

from kdnas.errors import UsageError
from kdnas.export.checkpoint import open_checkpoint
from kdnas.export.folder import FORMS, MULTI_LABEL, SETTINGS
from kdnas.export.judge import Candidate, Judge, answers_kept
from kdnas.export.labelled import Labelled
from kdnas.export.options import ExportOptions
from kdnas.export.outputs import answers_of_texts, sigmoid
from kdnas.export.parity import compare
from kdnas.export.run import run_export
from kdnas.export.scores import label_mean_f1
from kdnas.export.session import Session
from kdnas.export.thresholds import THRESHOLDS, read_thresholds
from kdnas.models.teacher import Teacher
from kdnas.text.corpus import Corpus

from .conftest import random_model

TEXTS = ["A short one.", "How do I open a file and read it line by line?", "No."]
NAMES = {0: "hate", 1: "abuse", 2: "profanity"}


def test_sigmoid_does_not_overflow() -> None:
    values = np.array([-1e4, -3.0, 0.0, 3.0, 1e4], dtype=np.float32)
    expected = [0.0, 1 / (1 + np.exp(3.0)), 0.5, 1 / (1 + np.exp(-3.0)), 1.0]
    assert sigmoid(values) == pytest.approx(np.array(expected), abs=1e-7)
    assert sigmoid(values).dtype == np.float32
    assert answers_of_texts(values[:, None]).tolist() == values[:, None].tolist()  # a regression is unchanged


@pytest.mark.slow
def test_every_form_gives_the_probabilities_of_transformers(
    home: Path, tiny_teacher: Teacher, corpus: Corpus, tmp_path: Path
) -> None:
    folder = random_model(
        "BertForSequenceClassification", tiny_teacher, tmp_path / "model", id2label=NAMES, problem_type=MULTI_LABEL
    )
    thresholds = {"schema": 1, "wanted": {"precision": 0.9}, "labels": {"hate": {"threshold": 0.7}}}
    (folder / THRESHOLDS).write_text(json.dumps(thresholds))
    options = ExportOptions(24, 24, recipes=("static", "dynamic"))
    exported = run_export(home, folder, open_checkpoint(str(folder)).digest, corpus, options)
    assert json.loads((exported.path / SETTINGS).read_text())["problem_type"] == MULTI_LABEL
    model = AutoModelForSequenceClassification.from_pretrained(exported.path)
    pipeline = TextClassificationPipeline(model=model, tokenizer=AutoTokenizer.from_pretrained(folder), top_k=None)
    wanted = [{one["label"]: one["score"] for one in row} for row in pipeline(TEXTS)]
    for form in FORMS:
        session = Session(exported.path, form)
        assert session.multi_label
        got = session.predict(TEXTS)
        for row, expected in zip(got, wanted, strict=True):
            by_name = dict(zip(session.labels, row.tolist(), strict=True))
            assert by_name == pytest.approx(expected, abs=1e-5 if form.endswith("f32") else 0.3)
        assert exported.results["forms"][form]["labels_equal"] > 0.8
    assert not np.allclose(got.sum(1), 1)  # a softmax would sum to 1
    card = (exported.path / "README.md").read_text()
    assert "independent probabilities of hate, abuse, profanity" in card
    assert "`thresholds.json` has decision thresholds" in card
    kept = read_thresholds(exported.path)
    assert kept is not None
    assert kept.of("hate") == 0.7
    assert THRESHOLDS in exported.manifest["files"]


def test_each_label_counts_in_the_agreement() -> None:
    rows = [[1], [2]]
    wanted = [np.array([[1.0, -1.0]]), np.array([[-2.0, -1.0]])]

    def run(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return np.array([[3.0, -1.0], [-1.0, 0.5]])[ids[:, 0] - 1]

    # Each row alone, and the second again in a batch: 6 labels, of which the second label of the second row differs twice.
    found = compare(run, "text-classification", rows, wanted, 0, 512, multi_label=True)
    assert found["labels_equal"] == pytest.approx(1 - 2 / 6)
    logits = np.array([[[1.0], [-1.0], [-2.0], [2.0]]])
    other = logits * np.array([1, -1, 1, 1])[None, :, None]
    assert answers_kept("text-classification", logits, other, multi_label=True) == 0.75


def test_macro_f1_is_the_mean_over_labels_where_they_are_known() -> None:
    truth = np.array([[1, 0, -1], [0, -1, -1], [1, 1, -1], [0, 1, -1]])
    answers = np.array([[1, 0, 1], [0, 1, 0], [0, 1, 1], [0, 0, 1]])
    # First label: F1 of class 1 is 2/3, of class 0 is 4/5. Second, without row 1: both are 2/3. The third is never known.
    assert label_mean_f1(truth, answers) == pytest.approx(((2 / 3 + 4 / 5) / 2 + 2 / 3) / 2)
    assert label_mean_f1(truth[:, 2:], answers[:, 2:]) == 0


class _Words:
    """A tokenizer of one token a text."""

    def encode_batch_fast(self, texts: list[str]) -> list[object]:
        return [type("Encoding", (), {"ids": [int(text)]})() for text in texts]


def test_a_judge_counts_independent_labels() -> None:
    truths = [(1, 0), (0, 1), (1, 0), (0, 1)]
    right = np.array(truths, dtype=np.float32) * 2 - 1

    def trained(ids: np.ndarray, mask: np.ndarray, types: np.ndarray | None = None) -> np.ndarray:
        return right[ids[:, 0]]

    labelled = Labelled(["0", "1", "2", "3"], truths, [""] * 4)
    model = Candidate(trained, "text-classification", _Words(), 0, 16, multi_label=True)
    judge = Judge.by_labels(labelled, ["a", "b"], model)
    assert judge.loss(trained, {}) == {"loss_points": 0, "dev_loss_points": 0, "loss_of": "macro-F1"}
    worse = judge.loss(lambda ids, mask, types=None: -trained(ids, mask), {})
    assert worse["loss_points"] == worse["dev_loss_points"] == 100


def test_one_independent_label_is_refused(tiny_teacher: Teacher, tmp_path: Path) -> None:
    folder = random_model(
        "BertForSequenceClassification", tiny_teacher, tmp_path / "one", num_labels=1, problem_type=MULTI_LABEL
    )
    with pytest.raises(UsageError, match="multi_label_classification with 1 labels is not exported"):
        open_checkpoint(str(folder))
