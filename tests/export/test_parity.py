"""The parity check detects wrong outputs and ignores padding."""

import numpy as np
import pytest

from kdnas.errors import BoundError
from kdnas.export.engines import open_graph
from kdnas.export.folder import FORMS, read_tokenizer
from kdnas.export.making import parity_rows
from kdnas.export.parity import compare, require_bound, spread_over_lengths
from kdnas.store.artifact import Artifact
from kdnas.text.corpus import Corpus

ROWS = [[1, 2, 3], [4, 5, 6, 7, 8, 9, 10], [11, 12]]
STATES = [np.outer(row, [1.0, -1.0]) for row in ROWS]


def answer(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """States (B, T, 2) that are +id and -id, with garbage at padding."""
    return np.where(mask[:, :, None] == 1, np.stack([ids, -ids], axis=-1), 1e9)


def test_equal_outputs_have_no_difference() -> None:
    found = compare(answer, "feature-extraction", ROWS, STATES, 0, 512)
    assert found["max_abs_diff"] == 0
    assert found["max_abs_value"] == 12
    assert found["cosine_min"] == pytest.approx(1)
    assert "labels_equal" not in found
    require_bound("form", found, 1e-4)


def test_one_wrong_value_gives_the_hand_computed_differences() -> None:
    def wrong(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        output = answer(ids, mask).astype(float)
        output[ids == 9, 0] += 0.5
        return output

    found = compare(wrong, "feature-extraction", ROWS, STATES, 0, 512)
    assert found["max_abs_diff"] == 0.5
    assert found["mean_abs_diff"] == pytest.approx(
        0.5 / (24 + 10)
    )  # all rows alone, and the last and first row in a batch
    with pytest.raises(BoundError, match=r"form: differs from PyTorch by up to 5.00e-01 .* 1.20e-03"):
        require_bound("form", found, 1e-4)


def test_an_error_only_in_padded_batches_is_detected() -> None:
    def forgets_mask(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return answer(ids, mask) + (mask == 0).any()

    with pytest.raises(BoundError):
        require_bound("form", compare(forgets_mask, "feature-extraction", ROWS, STATES, 0, 512), 1e-4)


def test_nan_is_refused() -> None:
    found = compare(lambda ids, mask: answer(ids, mask) * np.nan, "feature-extraction", ROWS, STATES, 0, 512)
    with pytest.raises(BoundError, match="inf"):
        require_bound("form", found, 1e-4)


def test_equal_labels_are_counted() -> None:
    logits = [np.array([[0.0, 1.0]]), np.array([[1.0, 0.0]]), np.array([[2.0, 0.0]])]
    found = compare(lambda ids, mask: np.tile([1.0, 0.0], (len(ids), 1)), "text-classification", ROWS, logits, 0, 512)
    assert found["labels_equal"] == pytest.approx((2 + 1) / (3 + 2))  # alone, and two of them in a batch


@pytest.mark.slow
def test_a_graph_with_other_outputs_is_refused(encoder_export: Artifact, corpus: Corpus) -> None:
    """The int8 graph serves as the wrong graph: its differences exceed the bound of float32 forms."""
    tokenizer = read_tokenizer(encoder_export.path / "tokenizer.json", 512)
    rows = parity_rows(corpus.validation, tokenizer, 8, 512)
    assert len(rows[-1]) == 512
    assert len(rows[-2]) == 256
    run = open_graph(encoder_export.path / FORMS["openvino-f32"], "openvino-f32", ("last_hidden_state",), 1)
    reference = [run(np.array([row]), np.ones((1, len(row)), dtype=np.int64))[0] for row in rows]
    broken = open_graph(encoder_export.path / FORMS["openvino-int8"], "openvino-int8", ("last_hidden_state",), 1)
    require_bound("good", compare(run, "feature-extraction", rows, reference, 0, 512), 1e-4)
    with pytest.raises(BoundError):
        require_bound("broken", compare(broken, "feature-extraction", rows, reference, 0, 512), 1e-4)


def test_chosen_sentences_are_spread_over_lengths() -> None:
    lengths = np.array([9, 3, 7, 5, 1])
    assert spread_over_lengths(lengths, 3) == [4, 3, 0]
    assert sorted(spread_over_lengths(lengths, 99)) == [0, 1, 2, 3, 4]


def test_the_cosine_is_of_the_pooled_vectors() -> None:
    rows, states = [[5, 6, 7]], [np.array([[1.0, 0.0], [0.0, 3.0], [0.0, 3.0]])]

    def turned(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return np.tile([[[0.0, 1.0], [0.0, 3.0], [0.0, 3.0]]], (len(ids), 1, 1))  # another first token

    found = {
        pooling: compare(turned, "feature-extraction", rows, states, 0, 512, pooling) for pooling in ("mean", "first")
    }
    assert found["first"]["cosine_min"] == pytest.approx(0.0)
    assert found["mean"]["cosine_min"] == pytest.approx(6 / np.sqrt(37))
