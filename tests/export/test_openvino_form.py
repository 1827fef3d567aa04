"""The OpenVINO int8 form: tables stay int8 in memory, and the outputs equal those of the quantiser's graph."""

from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest

import kdnas.export.openvino_form as module
from kdnas.export.checkpoint import load_model, open_checkpoint
from kdnas.export.openvino_form import take_rows_before_scaling, write_int8, write_openvino
from kdnas.export.silence import silence_exporters
from kdnas.models.teacher import Teacher

pytestmark = pytest.mark.slow


ROWS = [list(range(5, 5 + length)) for length in range(6, 30, 2)]


@pytest.fixture
def graphs(tiny_teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """The quantiser's graph and the exported graph."""
    with silence_exporters():
        write_openvino(load_model(open_checkpoint(str(tiny_teacher.path))), "feature-extraction", tmp_path / "f32")
        write_int8(tmp_path / "f32", "feature-extraction", ROWS, tmp_path / "ours")
        monkeypatch.setattr(module, "change_graph", lambda *_: None)
        write_int8(tmp_path / "f32", "feature-extraction", ROWS, tmp_path / "theirs")
    assert sorted(file.name for file in (tmp_path / "ours").iterdir()) == sorted(
        file.name for file in (tmp_path / "theirs").iterdir()
    )
    theirs, ours = (
        openvino.Core().read_model(str(tmp_path / name / "openvino_model.xml")) for name in ("theirs", "ours")
    )
    return theirs, ours


def tables(model: Any) -> list[tuple[str, int]]:
    """Element type and number of rows of the table of each look-up."""
    sources = [node.input_value(0) for node in model.get_ops() if node.get_type_name() == "Gather"]
    return [
        (source.get_element_type().get_type_name(), source.get_partial_shape()[0].get_length())
        for source in sources
        if source.get_partial_shape().is_static and len(source.get_partial_shape()) == 2
    ]


def test_tables_stay_int8(graphs: tuple[Any, Any], tiny_teacher: Teacher) -> None:
    theirs, ours = graphs
    rows = tiny_teacher.config["vocab_size"]
    assert ("i8", rows) not in tables(theirs)
    assert ("i8", rows) in tables(ours)
    assert ("f32", rows) in tables(ours)  # one scale per row
    assert take_rows_before_scaling(ours) == 0  # a second call changes nothing


def test_outputs_equal_those_of_the_quantiser(graphs: tuple[Any, Any]) -> None:
    theirs, ours = (
        openvino.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}) for graph in graphs
    )
    rng = np.random.default_rng(0)
    for length in (2, 9, 64):
        ids = rng.integers(5, 3000, (2, length))
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        np.testing.assert_array_equal(ours(feeds)[0], theirs(feeds)[0])
