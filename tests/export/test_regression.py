"""Regression of texts to one number: exported like a classifier, and refused wherever labels are needed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from kdnas.errors import UsageError
from kdnas.export.folder import FORMS
from kdnas.export.judge import Judge, answers_kept
from kdnas.export.options import ExportOptions
from kdnas.export.parity import compare
from kdnas.export.run import run_export
from kdnas.export.session import Session
from kdnas.export.spans import text_logits
from kdnas.filtering.scoring import Scorer
from kdnas.store.artifact import Artifact
from kdnas.text.corpus import Corpus

TEXTS = ["A short one.", "How do I open a file and read it line by line?", "No."]
NUMBERS = [np.array([[1.0]]), np.array([[2.0]]), np.array([[4.0]])]
ROWS = [[1], [2], [4]]


def test_every_form_predicts_the_same_number_as_pytorch(regression_folder: Path, regression_export: Artifact) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(regression_folder).eval()
    for form in FORMS:
        session = Session(regression_export.path, form)
        with torch.inference_mode():
            expected = [model(torch.tensor([row])).logits.item() for row in session.encode(TEXTS)]
        got = session.predict(TEXTS)
        assert got.shape == (3, 1)
        assert got.tolist() == text_logits(session, TEXTS).tolist()
        assert got[:, 0] == pytest.approx(expected, abs=1e-4 if form.endswith("f32") else 0.3)
        assert np.ptp(got) > 0.01  # a softmax would give 1 for all texts
        assert regression_export.results["forms"][form]["correlation"] > 0.9
    card = (regression_export.path / "README.md").read_text()
    assert "one minus the correlation of the numbers" in card
    assert "kdnas filter" not in card


def test_correlation_replaces_label_agreement() -> None:
    def run(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return 3.0 * ids[:, :1] - 1

    found = compare(run, "text-classification", ROWS, NUMBERS, 0, 512)
    assert found["correlation"] == pytest.approx(1)
    assert "labels_equal" not in found
    backwards = compare(lambda ids, mask: -run(ids, mask), "text-classification", ROWS, NUMBERS, 0, 512)
    assert Judge("text-classification").loss(run, backwards) == {
        "loss_points": pytest.approx(200),
        "dev_loss_points": pytest.approx(200),
        "loss_of": "correlation",
    }
    still = compare(lambda ids, mask: np.ones((len(ids), 1)), "text-classification", ROWS, NUMBERS, 0, 512)
    assert still["correlation"] == 0
    number = np.array([[[4.0]]])
    assert answers_kept("text-classification", number, number - 1) == pytest.approx(0.75)


def test_the_filter_and_labelled_evaluation_refuse_a_regression(
    tmp_path: Path, regression_folder: Path, regression_export: Artifact, corpus: Corpus
) -> None:
    with pytest.raises(UsageError, match="regression model"):
        Scorer(regression_export.path, None, threads=1)
    options = ExportOptions(16, 16, evaluation=tmp_path / "labelled.jsonl")
    with pytest.raises(UsageError, match="is a regression"):
        run_export(tmp_path, regression_folder, "digest", corpus, options)
