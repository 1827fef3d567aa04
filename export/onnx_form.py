"""The ONNX form: written by Optimum's exporter from a loaded PyTorch model, float32, dynamic batch and length."""

from pathlib import Path
from typing import Any


def write_onnx(model: Any, task: str, folder: Path) -> None:
    """Write `model.onnx` and the config.json that Optimum's classes want beside it.

    Optimum's own comparison is left out: every form is compared with PyTorch on real sentences afterwards.
    """
    from optimum.exporters.onnx import onnx_export_from_model

    onnx_export_from_model(model, folder, task=task, do_validation=False)
