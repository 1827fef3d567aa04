"""`kdnas hap-check`: which label and threshold count, and the same decisions as transformers for any classifier."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertForSequenceClassification

from kdnas.errors import UsageError
from kdnas.evaluation.hap_classifier.check import check, hap_check, hate_label, open_classifier
from kdnas.evaluation.hap_classifier.functional import cases, functional_scores
from kdnas.export.thresholds import THRESHOLDS
from kdnas.models.teacher import Teacher


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["not-hap", "hap"], "hap"),
        (["abuse", "profanity", "hate"], "hate"),
        (["offensive", "Hate_Speech", "neither"], "Hate_Speech"),
        (["LABEL_0", "LABEL_1"], "LABEL_1"),
    ],
)
def test_the_label_for_hate_is_found_by_name(labels: list[str], expected: str) -> None:
    assert hate_label(labels) == expected
    assert hate_label(labels, labels[0]) == labels[0]
    with pytest.raises(UsageError, match="no such label"):
        hate_label(labels, "spam")


def test_labels_without_hate_are_refused() -> None:
    with pytest.raises(UsageError, match="a, b, c do not show which one means hate; give --label"):
        hate_label(["a", "b", "c"])


def classifier(teacher: Teacher, folder: Path, multi_label: bool) -> Path:
    """A random classifier with outputs that differ between texts."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=teacher.config["vocab_size"], hidden_size=48, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, initializer_range=0.3, id2label={0: "profanity", 1: "hate"},
        problem_type="multi_label_classification" if multi_label else None,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((teacher.path / name).read_bytes())
    return folder


@pytest.mark.parametrize("multi_label", [True, False])
def test_decisions_are_those_of_transformers(
    teacher: Teacher, tmp_path: Path, multi_label: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = classifier(teacher, tmp_path / "model", multi_label)
    suite = cases(("en", "de"))
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    encoded = AutoTokenizer.from_pretrained(folder)([case.text for case in suite], padding=True, return_tensors="pt")
    with torch.inference_mode():
        logits = model(**encoded).logits
    chances = (logits.sigmoid() if multi_label else logits.softmax(-1))[:, 1].numpy()
    outcome = hap_check(str(folder), languages=("en", "de"))
    assert outcome.text is not None
    found = json.loads(outcome.text)
    assert found == json.loads(json.dumps(outcome.results))
    for code in ("en", "de"):
        rows = [row for row, case in enumerate(suite) if case.language == code]
        expected = functional_scores(chances[rows] >= 0.5, [suite[row] for row in rows])
        assert found["languages"][code]["macro_f1"] == pytest.approx(expected["macro_f1"], abs=0.01)
    assert "false positives: women" in capsys.readouterr().err


def test_thresholds_of_the_folder_count_by_language(teacher: Teacher, tmp_path: Path) -> None:
    folder = classifier(teacher, tmp_path / "model", multi_label=True)
    entry = {"threshold": 0.0, "languages": {"de": {"threshold": None}, "fr": {"threshold": 1.0}}}
    (folder / THRESHOLDS).write_text(json.dumps({"schema": 1, "wanted": {"precision": 0.9}, "labels": {"hate": entry}}))
    opened = open_classifier(str(folder))
    found = check(opened)
    assert found["thresholds"] == {"en": 0.0, "de": None, "fr": 1.0, "pt": 0.0}
    assert found["languages"]["en"]["found"] == found["languages"]["pt"]["false_positive_rate"] == 1
    assert found["languages"]["de"]["found"] == 0  # not reachable: no text gets the label
    assert np.isclose(check(opened, ("de",), threshold=0.0)["languages"]["de"]["found"], 1)
    assert check(opened, ("de",), label="profanity")["thresholds"] == {"de": 0.5}


def test_wrong_models_and_options_are_refused(tiny_teacher: Teacher, teacher: Teacher, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="this is a model for feature-extraction; give a classifier"):
        hap_check(str(tiny_teacher.path))
    with pytest.raises(UsageError, match="languages has xx"):
        hap_check(str(tiny_teacher.path), languages=("xx",))
    with pytest.raises(UsageError, match="threshold is 2"):
        hap_check(str(tiny_teacher.path), threshold=2)
    with pytest.raises(UsageError, match="is not exported and has no forms"):
        hap_check(str(classifier(teacher, tmp_path / "model", True)), form="openvino-int8")
