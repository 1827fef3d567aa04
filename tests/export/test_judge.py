"""Loss of a form in points, against hand-computed values."""

from types import SimpleNamespace

import numpy as np
import pytest

from kdnas.export.judge import Candidate, Judge, answers_kept
from kdnas.export.labelled import Labelled


class Words:
    """A tokenizer that maps the letters a to d to the ids 5 to 8."""

    def encode_batch_fast(self, texts: list[str]) -> list[SimpleNamespace]:
        return [SimpleNamespace(ids=[ord(text) - ord("a") + 5], type_ids=[0]) for text in texts]


LABELS = [0, 1, 0, 1]


def judge(languages: list[str], copies: int = 2) -> Judge:
    """Copies of four texts of one token each; PyTorch predicts 0, 1, 0, 1, which are also the labels."""

    def trained(ids: np.ndarray, mask: np.ndarray, types: np.ndarray | None) -> np.ndarray:
        return np.eye(2)[(ids[:, 0] + 1) % 2]

    labelled = Labelled(list("abcd") * copies, LABELS * copies, languages * copies)
    model = Candidate(trained, "text-classification", Words(), 0, 16)
    return Judge.by_labels(labelled, ["no", "yes"], model)


def answering(answers: list[int]):  # type: ignore[no-untyped-def]
    """A form that predicts one of `answers` for each row, by its first token."""
    return lambda ids, mask, types: np.eye(2, dtype=np.float32)[[answers[first - 5] for first in ids[:, 0]]]


def test_the_loss_in_macro_f1_is_that_of_the_worst_language() -> None:
    # de: 0, 1 predicted as 0, 0: F1 of class 0 is 2/3, of class 1 is 0, so macro-F1 falls from 1 to 1/3. fr loses nothing.
    found = judge(["de", "de", "fr", "fr"]).loss(answering([0, 0, 0, 1]), {})
    assert found["loss_points"] == found["dev_loss_points"] == pytest.approx(100 * 2 / 3)
    assert found["loss_by_language"] == pytest.approx({"de": 100 * 2 / 3, "fr": 0})
    assert found["loss_of"] == "macro-F1"
    same = judge([""] * 4).loss(answering([0, 1, 0, 1]), {})
    assert same == {"loss_points": 0, "dev_loss_points": 0, "loss_of": "macro-F1"}


def test_errors_on_rows_of_one_half_count_only_there() -> None:
    labelled = Labelled(list("abcd"), [0, 0, 1, 1], [""] * 4)
    dev, test = labelled.halves()
    model = Candidate(answering(labelled.truths), "text-classification", Words(), 0, 16)
    judged = Judge.by_labels(labelled, ["no", "yes"], model)
    for wrong, of_dev in ((dev[0], True), (test[0], False)):
        answers = [label ^ (row == wrong) for row, label in enumerate(labelled.truths)]
        found = judged.loss(answering(answers), {})
        assert (found["dev_loss_points"] > 0, found["loss_points"] > 0) == (of_dev, not of_dev)


def test_without_labels_the_loss_is_the_change_of_outputs() -> None:
    judge = Judge("token-classification")
    assert judge.loss(answering([]), {"labels_equal": 0.94, "cosine_mean": 0.5}) == {
        "loss_points": pytest.approx(6),
        "dev_loss_points": pytest.approx(6),
        "loss_of": "labels changed",
    }
    encoder = Judge("feature-extraction")
    assert encoder.loss(answering([]), {"cosine_mean": 0.94})["loss_of"] == "mean cosine"
    assert encoder.loss(answering([]), {"cosine_mean": float("nan")})["loss_points"] == 100


def test_agreement_equals_hand_computed_values() -> None:
    states = np.array([[[[1.0], [0.0]], [[0.0], [1.0]]]])
    assert answers_kept("feature-extraction", states, states) == pytest.approx(1)
    assert answers_kept("feature-extraction", states, states[:, ::-1]) == pytest.approx(0)
    logits = np.array([[[0.1], [0.9]]])
    assert answers_kept("text-classification", logits, logits[:, ::-1]) == 0
    tokens = np.array([[[[0.9], [0.1]], [[0.2], [0.8]]]])
    assert answers_kept("token-classification", tokens, np.flip(tokens, 1)) == 0
    assert answers_kept("token-classification", tokens, np.concatenate([tokens[:, :1]] * 2, 1)) == 0.5
    spans = np.array([[[0.9, 0.0], [0.1, 1.0], [0.0, 0.5]]])
    assert answers_kept("question-answering", spans, spans[:, [1, 0, 2]]) == 0
    assert answers_kept("question-answering", spans, np.stack([spans[..., 0], np.eye(3)[:1]], -1)) == 0.5
