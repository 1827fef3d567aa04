"""Quantisation recipes for int8."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kdnas.export.checkpoint import TOKENIZER_FILES
from kdnas.export.onnx_form import write_onnx_int8, write_onnx_int8_attention, write_onnx_int8_blocks
from kdnas.export.openvino_form import write_int8, write_int8_weights
from kdnas.models.engine import engine_of


@dataclass(frozen=True)
class Quantising:
    """Inputs of a quantisation.

    Args:
        source: folder of the float32 graph.
        task: task of the model.
        calibration: token ids of the calibration sentences.
    """

    source: Path
    task: str
    calibration: list[list[int]]


Recipe = Callable[[Quantising, Path], None]  # writes the int8 graph into a folder
# Latency tables use the first recipe of each form.
RECIPES: dict[str, dict[str, Recipe]] = {
    "openvino-int8": {
        "static-smoothquant": lambda given, folder: write_int8(given.source, given.task, given.calibration, folder),
        "weight-only": lambda given, folder: write_int8_weights(given.source, given.task, folder),
        "static": lambda given, folder: write_int8(given.source, given.task, given.calibration, folder, smooth=False),
    },
    "onnxruntime-int8": {
        "dynamic": lambda given, folder: write_onnx_int8(given.source, folder),
        "dynamic-attention": lambda given, folder: write_onnx_int8_attention(given.source, folder),
        "block-wise": lambda given, folder: write_onnx_int8_blocks(given.source, folder),
    },
}
# Variants or slower forms of earlier recipes: tried only if the earlier ones lose too much.
FALLBACKS = ("static", "block-wise")
FLOAT = {form: engine_of(form).float_name for form in RECIPES}
NAMES = tuple(name for names in RECIPES.values() for name in names)


def first_recipe(form: str) -> Recipe:
    """The recipe of an int8 form that latency tables use."""
    return next(iter(RECIPES[form].values()))


def write_recipe(form: str, name: str, given: Quantising, folder: Path) -> None:
    """Write an int8 form by one of its recipes."""
    RECIPES[form][name](given, folder)


def without_tokenizer(folder: Path) -> None:
    """Remove the tokenizer copy of the exporters: the export folder holds one for all forms."""
    for name in (*TOKENIZER_FILES, "vocab.txt", "vocab.json"):
        (folder / name).unlink(missing_ok=True)
