"""The OpenVINO forms: float32, and int8 weights and activations calibrated on real sentences by NNCF."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from kdnas.teacher import load_config

KINDS = {
    "feature-extraction": "OVModelForFeatureExtraction",
    "text-classification": "OVModelForSequenceClassification",
    "token-classification": "OVModelForTokenClassification",
    "question-answering": "OVModelForQuestionAnswering",
}
# NNCF would report its use over the network.
os.environ.setdefault("NNCF_CI", "1")


def write_openvino(model: Any, task: str, folder: Path) -> None:
    """Write `openvino_model.xml` and `.bin` in float32, without compression of weights."""
    from optimum.exporters.openvino.convert import export_from_model
    from optimum.intel import OVConfig

    export_from_model(model, folder, task=task, ov_config=OVConfig(dtype="fp32"), stateful=False)


def write_int8(float_folder: Path, task: str, rows: list[list[int]], folder: Path) -> None:
    """Quantise the float32 form: weights per channel symmetric, activations static, ranges seen on `rows`.

    Args:
        float_folder: what `write_openvino` wrote.
        rows: token ids of the calibration sentences; each is run alone, so padding never shifts a range.
    """
    import nncf
    import openvino
    import optimum.intel
    from optimum.intel import OVConfig, OVQuantizationConfig, OVQuantizer

    kind = getattr(optimum.intel, KINDS[task])
    graph = openvino.Core().read_model(str(float_folder / "openvino_model.xml"))
    names = [port.get_any_name() for port in graph.inputs]
    model = kind(graph, config=load_config(float_folder), compile=False)
    samples = nncf.Dataset([_feeds(names, row) for row in rows])
    config = OVConfig(quantization_config=OVQuantizationConfig(bits=8, num_samples=len(rows)))
    OVQuantizer.from_pretrained(model).quantize({"model": samples}, save_directory=folder, ov_config=config)
    _save_with_int8_rows(folder)


def _save_with_int8_rows(folder: Path) -> None:
    """Write the quantised graph again with tables that stay int8 in memory."""
    import openvino

    graph = folder / "openvino_model.xml"
    scratch = folder / "int8-rows"
    scratch.mkdir()
    model = openvino.Core().read_model(str(graph))  # maps the weights of the file, which must not change meanwhile
    take_rows_before_scaling(model)
    openvino.save_model(model, str(scratch / graph.name), compress_to_fp16=False)
    del model
    for file in scratch.iterdir():
        os.replace(file, folder / file.name)
    scratch.rmdir()


def take_rows_before_scaling(model: Any) -> int:
    """Make each look-up in an int8 table take its rows first and scale them then; returns how many were changed.

    The quantiser scales the whole table and looks up rows of that. OpenVINO computes the scaled table once, in float32,
    when it compiles a quantised graph: four times the memory of what the file holds. Rows that are taken as int8 and
    scaled by their rows' factors are the same numbers.

    Args:
        model: an `openvino.Model`; changed in place.
    """
    from openvino import opset13 as ops

    changed = 0
    for node in model.get_ops():
        if node.get_type_name() != "Gather":
            continue
        scaled = node.input_value(0).get_node()
        if scaled.get_type_name() != "Multiply":
            continue
        convert, scale = (scaled.input_value(place).get_node() for place in (0, 1))
        if convert.get_type_name() != "Convert" or scale.get_type_name() != "Constant":
            continue
        table = convert.input_value(0)
        if table.get_node().get_type_name() != "Constant" or table.get_element_type().get_type_name() != "i8":
            continue
        places, axis = node.input_value(1), node.input_value(2)
        rows = ops.convert(ops.gather(table, places, axis), "f32")
        factors = ops.gather(scale.output(0), places, axis)
        taken = ops.multiply(rows, factors)
        taken.set_friendly_name(node.get_friendly_name())
        node.output(0).replace(taken.output(0))
        changed += 1
    return changed


def _feeds(names: list[str], row: list[int]) -> dict[str, np.ndarray]:
    ids = np.asarray([row], dtype=np.int64)
    return {name: ids if name == "input_ids" else np.full_like(ids, name == "attention_mask") for name in names}
