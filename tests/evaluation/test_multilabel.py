"""The multi-label kind: loss and scores against loops, reading of labels, and a model that learns with unknown labels."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdnas.evaluation.averages import scored
from kdnas.evaluation.kinds import MULTI_LABEL, MultiLabel
from kdnas.evaluation.kinds.multilabel import as_array
from kdnas.evaluation.metrics import multi_label_scores
from kdnas.evaluation.rows import Split
from kdnas.evaluation.tasks import Task

LABELS = ["hate", "abuse", "profanity"]


@given(
    st.lists(
        st.lists(st.tuples(st.floats(-8, 8), st.sampled_from([None, 0.0, 1.0, 0.3])), min_size=3, max_size=3),
        min_size=1,
    )
)
def test_the_loss_is_that_of_a_loop_over_the_known_labels(rows: list[list[tuple[float, float | None]]]) -> None:
    terms = []
    for row in rows:
        for logit, truth in row:
            if truth is not None:
                chance = 1 / (1 + math.exp(-logit))
                terms.append(-truth * math.log(chance) - (1 - truth) * math.log(1 - chance))
    logits = torch.tensor([[logit for logit, _ in row] for row in rows], dtype=torch.float64, requires_grad=True)
    targets = torch.from_numpy(as_array([tuple(truth for _, truth in row) for row in rows]))
    loss = MULTI_LABEL.loss(SimpleNamespace(logits=logits), targets)
    assert loss.item() == pytest.approx(sum(terms) / max(len(terms), 1), abs=1e-4)
    loss.backward()
    assert logits.grad is not None
    unknown = targets < 0
    assert not logits.grad[unknown].any()  # unknown labels have no gradient


def test_labels_are_read_by_name_or_by_a_table() -> None:
    assert MULTI_LABEL.read_label({"hate": 1, "profanity": 0}, LABELS, {}, None) == (1, None, 0)
    for wrong in ({}, {"spam": 1}, {"hate": 2}, "hate"):
        with pytest.raises(ValueError, match="allowed are 0 and 1 for some of hate, abuse, profanity"):
            MULTI_LABEL.read_label(wrong, LABELS, {}, None)
    table = MultiLabel({"a": (1.0, None, 0.0)}.__getitem__)
    assert table.read_label("a", LABELS, {}, None) == (1, None, 0)
    with pytest.raises(ValueError, match="is 'b'"):
        table.read_label("b", LABELS, {}, None)
    assert MULTI_LABEL.head_settings(LABELS)["problem_type"] == "multi_label_classification"


def test_scores_are_those_of_a_loop_over_the_known_labels() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(-1, 2, (200, 3)).astype(np.float32)
    truth[:, 2] = np.minimum(truth[:, 2], 0)  # no positives: left out of the means
    chance = rng.random((200, 3))
    found = multi_label_scores(truth, chance, LABELS)
    for index, label in enumerate(LABELS[:2]):
        f1 = []
        for wanted in (0, 1):
            pairs = [
                (row[index] == wanted, (p[index] >= 0.5) == wanted)
                for row, p in zip(truth, chance, strict=True)
                if row[index] >= 0
            ]
            right = sum(a and b for a, b in pairs)
            f1.append(2 * right / (sum(a for a, _ in pairs) + sum(b for _, b in pairs)))
        assert found[f"{label}_macro_f1"] == pytest.approx(sum(f1) / 2)
        assert found[f"{label}_binary_f1"] == pytest.approx(f1[1])
    assert found["macro_f1"] == pytest.approx((found["hate_macro_f1"] + found["abuse_macro_f1"]) / 2)
    assert not any(name.startswith("profanity") for name in found)


def test_a_language_without_a_label_is_left_out_of_its_mean() -> None:
    labels = [(1.0, 0.0, None), (0.0, 1.0, None), (None, 1.0, None), (None, 0.0, None)]
    split = Split(list("abcd"), labels, ["en", "en", "zh", "zh"])
    task = Task("toy", LABELS, split, split, split, kind=MULTI_LABEL)
    right = np.clip(as_array(labels), 0, 1)
    found = scored(task, split, right)
    assert found["scores"]["hate_macro_f1"] == found["by_language"]["zh"]["abuse_macro_f1"] == 1
    assert "hate_macro_f1" not in found["by_language"]["zh"]
    assert found["language_means"]["hate_macro_f1"] == found["language_means"]["macro_f1"] == 1
