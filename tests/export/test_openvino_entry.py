"""Shortening the nodes before a graph's first layer: fewer nodes, the same outputs."""

from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

import kdnas.export.openvino_form as module
from kdnas.export.openvino_entry import shorten_entry, small_tables
from kdnas.export.openvino_form import GRAPH, write_int8, write_openvino
from kdnas.export.silence import silence_exporters
from kdnas.latency.template import as_if_trained

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "vocab_size": 90}
FAMILIES = {
    "bert": {"max_position_embeddings": 40},
    "xlm-roberta": {"max_position_embeddings": 42, "type_vocab_size": 1},
}


def plain_graph(family: str, head: bool, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny model's float32 graph before its entry is shortened."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **SIZES, **FAMILIES[family])
    if head:
        model = AutoModelForSequenceClassification.from_config(config)
    else:
        model = AutoModel.from_config(config, add_pooling_layer=False)
    with monkeypatch.context() as patch, silence_exporters():
        patch.setattr(module, "change_graph", lambda *_: None)
        write_openvino(as_if_trained(model.eval()), "text-classification" if head else "feature-extraction", folder)
    return folder / GRAPH


def answers(model: Any, feeds: dict[str, np.ndarray]) -> np.ndarray:
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    names = {port.get_any_name() for port in compiled.inputs}
    return np.array(compiled({name: value for name, value in feeds.items() if name in names})[0])


@pytest.mark.slow
@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize(("family", "recognised"), [("bert", 2), ("xlm-roberta", 3)])
def test_shortening_does_not_change_the_outputs(
    family: str, recognised: int, head: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = plain_graph(family, head, tmp_path / "plain", monkeypatch)
    before, after = (openvino.Core().read_model(str(path)) for _ in range(2))
    assert shorten_entry(after) == recognised
    assert len(after.get_ops()) < len(before.get_ops())
    assert shorten_entry(after) == 0  # a second call changes nothing
    rng = np.random.default_rng(0)
    for length in (2, 7, 40):
        ids = rng.integers(5, 90, (3, length))
        mask, types = np.ones_like(ids), rng.integers(0, 2, (3, length))
        for row, real in ((1, 2), (2, max(2, length // 2))):
            ids[row, real:], mask[row, real:] = 1, 0
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        real_ones = slice(None) if head else mask.astype(bool)
        np.testing.assert_allclose(answers(after, feeds)[real_ones], answers(before, feeds)[real_ones], atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "rows"), [("bert", 2), ("xlm-roberta", 42)])
def test_small_tables_are_not_quantised(
    family: str, rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = plain_graph(family, False, tmp_path / "f32", monkeypatch)
    with silence_exporters():
        module.change_graph(path.parent, shorten_entry)
        write_int8(path.parent, "feature-extraction", [list(range(5, 5 + n)) for n in range(4, 30)], tmp_path / "int8")
    model = openvino.Core().read_model(str(tmp_path / "int8" / GRAPH))
    gathers = {node.get_friendly_name(): node for node in model.get_ops() if node.get_type_name() == "Gather"}
    (name,) = small_tables(model)
    table = gathers[name].input_value(0)
    assert table.get_element_type().get_type_name() == "f32"
    assert list(table.get_shape()) == [rows, 16]


@pytest.mark.slow
def test_unrecognised_nodes_are_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = plain_graph("bert", False, tmp_path / "plain", monkeypatch)
    model = openvino.Core().read_model(str(path))
    for node in model.get_ops():
        if node.get_type_name() == "Select":
            node.output(0).replace(node.input_value(2))  # removes the selection that marks a mask
        node.set_friendly_name(f"node {node.get_name()}")
    count = len(model.get_ops())
    assert shorten_entry(model) == 0
    assert len(model.get_ops()) == count
    assert small_tables(model) == []
