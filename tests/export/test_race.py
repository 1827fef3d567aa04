"""Comparing the latencies of engines: their inputs and the result."""

import time

import numpy as np
import pytest

from kdnas.export.race import MOST_ROUNDS, SENTENCES, race
from kdnas.export.session import Session
from kdnas.store.artifact import Artifact
from kdnas.store.host import default_threads


def test_each_engine_gets_all_lengths_with_its_session_s_padding(encoder_export: Artifact) -> None:
    seen: dict[str, list[tuple[int, int]]] = {"openvino-int8": [], "onnxruntime-int8": []}

    def engine(name: str):  # type: ignore[no-untyped-def]
        return lambda ids, mask: seen[name].append((ids.shape[1], int(mask.sum())))

    rows = [[7] * length for length in range(1, 45)]
    took = race({form: (form, engine(form)) for form in seen}, rows, 45)
    assert set(took) == set(seen)
    chosen = sorted(rows[index * 44 // SENTENCES] for index in range(SENTENCES))
    for name, calls in seen.items():
        # All sentences once, then in each round a quarter to warm the caches and all of them.
        assert len(calls) == SENTENCES + MOST_ROUNDS * (SENTENCES // 4 + SENTENCES)
        session = Session(encoder_export.path, name)
        session.max_seq_len = 45
        expected = {(session.pad([row])[0].shape[1], len(row)) for row in chosen}
        assert expected <= set(calls)
    assert {width for width, _ in seen["openvino-int8"]} <= {8, 16, 24, 32, 40, 45}


def test_the_faster_engine_has_the_lower_latency() -> None:
    def sleeping(seconds: float):  # type: ignore[no-untyped-def]
        return lambda ids, mask: time.sleep(seconds)

    took = race({"a": ("openvino-f32", sleeping(0.004)), 1: ("onnxruntime-f32", sleeping(0.001))}, [[5, 6]] * 3, 16)
    assert took["a"] > took[1] >= 1


@pytest.mark.slow
def test_a_session_uses_the_fastest_number_of_threads(classifier_export: Artifact) -> None:
    for form, found in classifier_export.results["forms"].items():
        assert found["threads"] in (1, default_threads())
        assert Session(classifier_export.path, form).threads == found["threads"]
        assert Session(classifier_export.path, form, threads=1).threads == 1


def test_padding_does_not_change_the_outputs(encoder_export: Artifact) -> None:
    texts = ["a", "two words", "the sum of all elements of an array along the given axis"]
    for form in ("openvino-f32", "onnxruntime-f32"):
        session = Session(encoder_export.path, form)
        together = session.predict(texts)
        alone = np.concatenate([session.predict([text]) for text in texts])
        np.testing.assert_allclose(together, alone, atol=1e-5)
