"""The table at the end of an export."""

from typing import Any

import pytest

from kdnas.export.run import is_foreign
from kdnas.export.summary import HEADER, lines_of
from kdnas.export.vocabulary import cut_of
from kdnas.store.artifact import Artifact
from kdnas.store.output import copy_output


def results(**forms: tuple[float, float]) -> dict[str, Any]:
    """Results of an export, from the latency in ms and the loss in points of each form."""
    return {
        "max_loss_points": 1.0,
        "forms": {
            name.replace("_", "-"): {
                "latency_ms": ms,
                "loss_points": points,
                "loss_of": "labels changed",
                "size_mb": 9.5,
            }
            for name, (ms, points) in forms.items()
        },
    }


def test_the_summary_has_one_line_per_form_and_the_default() -> None:
    found = results(openvino_int8=(1.25, 0.5), openvino_f32=(3.0, 0.0))
    header, int8, float32, default = lines_of(found, ["openvino-int8"])
    assert all(name in header for name in HEADER)
    assert [int8.split()[:4], float32.split()[:4]] == [
        ["openvino-int8", "1.25", "9.5", "0.50"],
        ["openvino-f32", "3.00", "9.5", "0.00"],
    ]
    assert default.startswith("default: openvino-int8")


@pytest.mark.parametrize(("ms", "points", "reason"), [(1.0, 3.0, "3.00 points"), (4.0, 0.5, "4.00 ms")])
def test_the_last_line_explains_why_int8_is_not_the_default(ms: float, points: float, reason: str) -> None:
    found = results(openvino_f32=(3.0, 0.0), openvino_int8=(ms, points))
    last = lines_of(found, ["openvino-int8"])[-1]
    assert "openvino-int8" in last
    assert reason in last
    assert lines_of(found, ["openvino-f32"])[-1].startswith("default: openvino-f32")


def test_a_model_from_outside_kdnas_is_foreign(encoder_export: Artifact, tmp_path: Any) -> None:
    assert is_foreign(str(tmp_path))
    assert not is_foreign(str(encoder_export.path))
    assert not is_foreign("builtin:minilm-l6")
    output = tmp_path / "output"
    copy_output({"config.json": encoder_export.path / "config.json"}, output, "distill")
    assert not is_foreign(str(output))


def test_the_vocabulary_is_reported_before_and_after_trimming() -> None:
    report = {
        "tokens_before": 30522, "tokens_after": 1000, "embeddings_mb_before": 46.9, "embeddings_mb_after": 1.5,
        "held_out_texts_covered": 0.5,
    }  # fmt: skip
    assert {"30,522", "1,000", "(embeddings", "46.9", "1.5"} <= set(cut_of(report).split())
