"""The OpenVINO forms: float32, and int8 weights and activations calibrated on real sentences by NNCF."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from kdnas.teacher import load_config

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
    from optimum.intel import (
        OVConfig,
        OVModelForFeatureExtraction,
        OVModelForSequenceClassification,
        OVQuantizationConfig,
        OVQuantizer,
    )

    kind = OVModelForSequenceClassification if task == "text-classification" else OVModelForFeatureExtraction
    graph = openvino.Core().read_model(str(float_folder / "openvino_model.xml"))
    names = [port.get_any_name() for port in graph.inputs]
    model = kind(graph, config=load_config(float_folder), compile=False)
    samples = nncf.Dataset([_feeds(names, row) for row in rows])
    config = OVConfig(quantization_config=OVQuantizationConfig(bits=8, num_samples=len(rows)))
    OVQuantizer.from_pretrained(model).quantize({"model": samples}, save_directory=folder, ov_config=config)


def _feeds(names: list[str], row: list[int]) -> dict[str, np.ndarray]:
    ids = np.asarray([row], dtype=np.int64)
    return {name: ids if name == "input_ids" else np.full_like(ids, name == "attention_mask") for name in names}
