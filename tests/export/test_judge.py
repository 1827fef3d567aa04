"""Points that a form loses, by hand-worked values."""

from pathlib import Path

import numpy as np
import pytest

from export.checkpoint import load_model, open_checkpoint
from export.judge import Judge, answers_kept
from export.labelled import Labelled
from export.session import read_tokenizer


def judge(languages: list[str]) -> Judge:
    """Four texts of one token each; PyTorch's logits answer 0, 1, 0, 1, as the labels say."""
    logits = np.eye(2, dtype=np.float32)[[0, 1, 0, 1]]
    labelled = Labelled(list("abcd"), [0, 1, 0, 1], languages)
    return Judge("text-classification", labelled, ([5], [6], [7], [8]), logits, 0, 16)


def answering(answers: list[int]):  # type: ignore[no-untyped-def]
    """A form that answers so, by the first token of each row."""
    return lambda ids, mask: np.eye(2, dtype=np.float32)[[answers[first - 5] for first in ids[:, 0]]]


def test_macro_f1_that_is_lost_in_the_worst_language() -> None:
    # de: 0, 1 answered 0, 0: F1 of class 0 is 2/3, of class 1 is 0, so macro-F1 falls from 1 to 1/3. fr keeps all.
    found = judge(["de", "de", "fr", "fr"]).loss(answering([0, 0, 0, 1]), {})
    assert found["loss_points"] == pytest.approx(100 * 2 / 3)
    assert found["loss_by_language"] == pytest.approx({"de": 100 * 2 / 3, "fr": 0})
    assert found["loss_of"] == "macro-F1"
    same = judge([""] * 4).loss(answering([0, 1, 0, 1]), {})
    assert same == {"loss_points": 0, "loss_of": "macro-F1"}


def test_without_labels_what_changed() -> None:
    assert Judge("token-classification").loss(answering([]), {"labels_equal": 0.98, "cosine_mean": 0.5}) == {
        "loss_points": pytest.approx(2),
        "loss_of": "labels changed",
    }
    assert Judge("feature-extraction").loss(answering([]), {"cosine_mean": 0.995})["loss_points"] == pytest.approx(0.5)
    assert Judge("feature-extraction").loss(answering([]), {"cosine_mean": float("nan")})["loss_points"] == 100


def test_pytorch_s_own_answers_lose_nothing(classifier_folder: Path) -> None:
    import torch

    checkpoint = open_checkpoint(str(classifier_folder))
    model, tokenizer = load_model(checkpoint), read_tokenizer(checkpoint.path / "tokenizer.json", 64)
    texts = [f"the {word} of arrays" * count for count, word in enumerate(["sum", "mean", "shape", "kind"], 1)]
    labelled = Labelled(texts, [0, 1, 2, 0], ["", "", "", ""])
    found = Judge.by_labels(labelled, model, tokenizer, checkpoint.pad_id, 64)

    def run(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(model(torch.from_numpy(ids), torch.from_numpy(mask)).logits.numpy())

    assert found.loss(run, {})["loss_points"] == 0
    assert found.logits is not None
    alone = np.concatenate([run(np.array([row]), np.ones((1, len(row)), dtype=np.int64)) for row in found.rows])
    np.testing.assert_allclose(found.logits, alone, atol=1e-5)


def test_answers_kept_by_hand() -> None:
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
