"""Calibration against scikit-learn and by hand, folding into the last layer, and thresholds against a loop."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from transformers import BertConfig, BertForSequenceClassification, RobertaConfig, RobertaForSequenceClassification

from kdnas.evaluation.hap_classifier.decide import (
    LEAST_SAID,
    binary_calibration_error,
    calibrate,
    choose_thresholds,
    fit_scale,
    fold_calibration,
    lowest_threshold,
)
from kdnas.evaluation.hap_classifier.options import Wanted
from kdnas.export.outputs import sigmoid

PRECISION, RATE = Wanted("precision", 0.9), Wanted("false_positive_rate", 0.05)


def drawn(count: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn with the probabilities of the scaled logits."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, count)
    return logits, (rng.random(count) < sigmoid(scale * logits)).astype(np.float32)


def test_the_scale_is_that_of_a_logistic_regression_without_intercept() -> None:
    logits, truth = drawn(20_000, 0.5)
    fitted = LogisticRegression(C=1e9, fit_intercept=False).fit(logits[:, None], truth)
    assert fit_scale(logits, truth) == pytest.approx(fitted.coef_[0, 0], abs=0.01)
    assert fit_scale(logits, truth) == pytest.approx(0.5, abs=0.05)


def test_separable_or_few_rows_stay_finite() -> None:
    logits = np.repeat([-6.0, 6.0], 200)
    # Two points: the fit reaches Platt's targets, of 200 rows each: 201 / 202 and 1 / 202.
    assert 6 * fit_scale(logits, (logits > 0).astype(np.float32)) == pytest.approx(np.log(201), abs=0.01)
    assert fit_scale(logits[195:205], (logits > 0)[195:205]) == 1.0


def test_calibration_lowers_the_error_where_labels_are_known() -> None:
    logits, truth = drawn(5000, 0.3)
    unknown = np.full(5000, -1.0)
    both = np.stack([truth, unknown], axis=1)
    found = calibrate(np.stack([logits, logits], axis=1), both, ["hate", "profanity"])
    assert found["hate"]["error_after"] < 0.02 < 0.1 < found["hate"]["error_before"]
    assert (found["profanity"]["scale"], found["profanity"]["rows"]) == (1.0, 0)


def test_the_calibration_error_is_the_mean_gap_of_bins() -> None:
    truth, chance = np.array([0.0, 1.0, 1.0, 1.0]), np.array([0.1, 0.1, 0.9, 0.9])
    assert binary_calibration_error(truth, chance, bins=2) == pytest.approx((abs(1 - 0.2) + abs(2 - 1.8)) / 4)
    assert binary_calibration_error(np.empty(0), np.empty(0)) == 0


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_folded_calibration_scales_each_logit(kind: str) -> None:
    shape = {
        "vocab_size": 50, "hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
        "num_labels": 3, "max_position_embeddings": 40, "pad_token_id": 1,
    }  # fmt: skip
    torch.manual_seed(0)
    made = (
        BertForSequenceClassification(BertConfig(**shape))
        if kind == "bert"
        else RobertaForSequenceClassification(RobertaConfig(**shape))
    )
    model, ids = made.eval(), torch.tensor([[5, 6, 7]])
    with torch.inference_mode():
        before = model(ids).logits
    given = {name: {"scale": scale} for name, scale in (("a", 0.5), ("b", 2.0), ("c", 1.0))}
    fold_calibration(model, given)
    with torch.inference_mode():
        after = model(ids).logits
    assert after[0].tolist() == pytest.approx((before[0] * torch.tensor([0.5, 2, 1])).tolist())


ROWS = st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=1, max_size=60)


@given(ROWS, st.sampled_from([PRECISION, RATE]))
def test_the_lowest_threshold_is_that_of_a_loop(rows: list[tuple[bool, float]], wanted: Wanted) -> None:
    truth, chance = np.array([right for right, _ in rows]), np.array([value for _, value in rows])
    found = None
    for step in range(1, 10_000):
        said = chance >= step / 10_000
        false, right = int((said & ~truth).sum()), int((said & truth).sum())
        if wanted.name == "precision":
            met = false + right >= LEAST_SAID and right / (false + right) >= 0.9 - 1e-12
        else:
            met = false <= 0.05 * max(int((~truth).sum()), 1)
        if met:
            found = step / 10_000
            break
    assert lowest_threshold(truth, chance, wanted) == found


def test_small_languages_take_the_common_threshold_and_unknown_labels_have_none() -> None:
    rng = np.random.default_rng(0)
    truth = (rng.random((600, 1)) < 0.4).astype(np.float32)
    chance = np.clip(truth * 0.4 + rng.random((600, 1)) * 0.6, 0, 1)
    truth = np.concatenate([truth, np.full((600, 1), -1, dtype=np.float32)], axis=1)
    languages = ["en"] * 580 + ["ko"] * 20
    found = choose_thresholds(truth, np.repeat(chance, 2, axis=1), languages, ["hate", "profanity"], PRECISION)
    assert set(found["labels"]["hate"]["languages"]) == {"en"}
    entry = found["labels"]["hate"]["languages"]["en"]
    said = chance[:580, 0] >= entry["threshold"]
    assert entry["precision"] == pytest.approx(truth[:580, 0][said].mean())
    assert entry["precision"] >= 0.9
    assert found["labels"]["profanity"] == {
        "threshold": None, "rows": 0, "positives": 0, "precision": None, "recall": None, "false_positive_rate": None,
        "languages": {},
    }  # fmt: skip
    assert SimpleNamespace(**found).wanted == {"precision": 0.9}
