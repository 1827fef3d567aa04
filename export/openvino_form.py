"""The OpenVINO forms: float32, and several int8 recipes by NNCF, with or without calibration on real sentences."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from kdnas.export.openvino_entry import shorten_entry, small_tables
from kdnas.models.teacher import load_config

KINDS = {
    "feature-extraction": "OVModelForFeatureExtraction",
    "text-classification": "OVModelForSequenceClassification",
    "token-classification": "OVModelForTokenClassification",
    "question-answering": "OVModelForQuestionAnswering",
}
GRAPH = "openvino_model.xml"
# Disables NNCF's telemetry.
os.environ.setdefault("NNCF_CI", "1")


def write_openvino(model: Any, task: str, folder: Path) -> None:
    """Write `openvino_model.xml` and its `.bin` in float32, without weight compression."""
    from optimum.exporters.openvino.convert import export_from_model
    from optimum.intel import OVConfig

    export_from_model(model, folder, task=task, ov_config=OVConfig(dtype="fp32"), stateful=False)
    change_graph(folder, shorten_entry)


def write_int8(float_folder: Path, task: str, rows: list[list[int]], folder: Path, smooth: bool = True) -> None:
    """Quantise the float32 form: weights per channel, symmetric; activations static, with ranges measured on `rows`.

    Args:
        float_folder: folder that `write_openvino` wrote.
        task: task of the model.
        rows: token ids of the calibration sentences; each runs alone, so padding does not affect the ranges.
        folder: output folder.
        smooth: move wide activations into the weights first (SmoothQuant, arXiv 2211.10438).
    """
    import nncf
    from optimum.intel import OVQuantizationConfig

    graph = _read(float_folder)
    samples = nncf.Dataset([_feeds(_names(graph), row) for row in rows])
    settings = OVQuantizationConfig(
        bits=8,
        num_samples=len(rows),
        smooth_quant_alpha=None if smooth else -1,
        ignored_scope={"names": small_tables(graph)},
    )
    _quantize(graph, float_folder, task, settings, folder, {"model": samples})


def write_int8_weights(float_folder: Path, task: str, folder: Path) -> None:
    """Quantise only the weights, per channel, symmetric; OpenVINO quantises activations in small groups at run time."""
    from optimum.intel import OVWeightQuantizationConfig

    graph = _read(float_folder)
    settings = OVWeightQuantizationConfig(bits=8, sym=True, ignored_scope={"names": small_tables(graph)})
    _quantize(graph, float_folder, task, settings, folder, None)


def write_int8_controlled(
    float_folder: Path,
    rows: list[list[int]],
    kept: Callable[[np.ndarray, np.ndarray], float],
    least: float,
    folder: Path,
) -> None:
    """Quantise as `write_int8`, then return the most sensitive layers to float32 until the outputs agree.

    Without SmoothQuant: NNCF restores the weights of the float32 model, which are not smoothed, but leaves the division of their
    activations in the graph. So each restored layer computes wrong values, NNCF restores all of them, and the result is wrong and
    has the size of float32 (NNCF 3.4, `QuantizationAccuracyRestorer._collect_original_biases_and_weights`).

    Args:
        float_folder: folder that `write_openvino` wrote.
        rows: token ids of the calibration sentences; outputs are compared on them too.
        kept: agreement of the float32 outputs for one row (first argument) with the quantised ones (second); 1 if equal.
        least: smallest allowed mean of `kept` over all rows.
        folder: output folder.
    """
    import nncf
    import openvino

    graph = _read(float_folder)
    names = _names(graph)
    compiled = openvino.Core().compile_model(graph, "CPU")
    pairs = [(feeds := _feeds(names, row), _stacked(compiled(feeds))) for row in rows]

    def validate(candidate: Any, items: Iterable[Any]) -> tuple[float, list[float]]:
        values = [kept(expected, _stacked(candidate(feeds))) for feeds, expected in items]
        return float(np.mean(values)), values

    quantized = nncf.quantize_with_accuracy_control(
        graph,
        calibration_dataset=nncf.Dataset([feeds for feeds, _ in pairs]),
        validation_dataset=nncf.Dataset(pairs),
        validation_fn=validate,
        max_drop=1 - least,
        drop_type=nncf.DropType.ABSOLUTE,
        model_type=nncf.ModelType.TRANSFORMER,
        ignored_scope=nncf.IgnoredScope(names=small_tables(graph)),
        advanced_quantization_parameters=nncf.AdvancedQuantizationParameters(
            smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(matmul=-1, convolution=-1)
        ),
    )
    folder.mkdir()
    openvino.save_model(quantized, str(folder / GRAPH), compress_to_fp16=False)
    load_config(float_folder).save_pretrained(folder)
    change_graph(folder, take_rows_before_scaling)  # tables stay int8 in memory


def _read(float_folder: Path) -> Any:
    import openvino

    return openvino.Core().read_model(str(float_folder / GRAPH))


def _names(graph: Any) -> list[str]:
    return [port.get_any_name() for port in graph.inputs]


def _stacked(outputs: Any) -> np.ndarray:
    """All outputs of one call, stacked along a new last axis."""
    return np.stack([np.array(value) for value in outputs.values()], axis=-1)


def _quantize(
    graph: Any, float_folder: Path, task: str, settings: Any, folder: Path, calibration: dict[str, Any] | None
) -> None:
    import optimum.intel
    from optimum.intel import OVConfig, OVQuantizer

    model = getattr(optimum.intel, KINDS[task])(graph, config=load_config(float_folder), compile=False)
    config = OVConfig(quantization_config=settings)
    OVQuantizer.from_pretrained(model).quantize(calibration, save_directory=folder, ov_config=config)
    change_graph(folder, take_rows_before_scaling)  # tables stay int8 in memory


def change_graph(folder: Path, change: Callable[[Any], object]) -> None:
    """Apply `change` to the graph of a folder and write it again."""
    import openvino

    graph = folder / GRAPH
    scratch = folder / "changed"
    scratch.mkdir()
    model = openvino.Core().read_model(str(graph))  # maps the weights file, which must not change before the save
    change(model)
    openvino.save_model(model, str(scratch / graph.name), compress_to_fp16=False)
    del model
    for file in scratch.iterdir():
        os.replace(file, folder / file.name)
    scratch.rmdir()


def take_rows_before_scaling(model: Any) -> int:
    """Make each look-up in an int8 table take rows first and scale them afterwards; returns the number of changed look-ups.

    The quantiser scales the whole table and takes rows from the result. OpenVINO computes the scaled table once, in float32,
    when it compiles a quantised graph, which takes four times the memory of the file. Taking int8 rows and scaling them by
    their own factors gives the same numbers.

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
        convert, scale = (scaled.input_value(index).get_node() for index in (0, 1))
        if convert.get_type_name() != "Convert" or scale.get_type_name() != "Constant":
            continue
        table = convert.input_value(0)
        if table.get_node().get_type_name() != "Constant" or table.get_element_type().get_type_name() != "i8":
            continue
        indices, axis = node.input_value(1), node.input_value(2)
        rows = ops.convert(ops.gather(table, indices, axis), "f32")
        factors = ops.gather(scale.output(0), indices, axis)
        taken = ops.multiply(rows, factors)
        taken.set_friendly_name(node.get_friendly_name())
        node.output(0).replace(taken.output(0))
        changed += 1
    return changed


def _feeds(names: list[str], row: list[int]) -> dict[str, np.ndarray]:
    ids = np.asarray([row], dtype=np.int64)
    return {name: ids if name == "input_ids" else np.full_like(ids, name == "attention_mask") for name in names}
