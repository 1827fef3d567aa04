"""Quantisation recipes for int8: each is written, measured and timed; the fastest within the loss bound is chosen."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdnas.errors import BoundError
from kdnas.export.checkpoint import TOKENIZER_FILES
from kdnas.export.engines import Forward, open_graph
from kdnas.export.folder import FORMS, TASKS
from kdnas.export.judge import answers_kept
from kdnas.export.onnx_form import write_onnx_int8, write_onnx_int8_attention, write_onnx_int8_blocks
from kdnas.export.openvino_form import write_int8, write_int8_controlled, write_int8_weights
from kdnas.export.race import race
from kdnas.models.engine import engine_of
from kdnas.store.host import default_threads


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
CONTROLLED = "static-accuracy-control"
# Variants or slower forms of earlier recipes: tried only if the earlier ones lose too much.
FALLBACKS = ("static", "block-wise")
FLOAT = {form: engine_of(form).float_name for form in RECIPES}
NAMES = tuple(name for names in RECIPES.values() for name in names)
Measure = Callable[[Forward], dict[str, Any]]


@dataclass(frozen=True)
class Int8Search:
    """The search for the best recipe of an int8 form.

    Args:
        folder: folder of the export, with the float32 forms.
        task: task of the model.
        calibration: token ids of the calibration sentences.
        measure: measures the differences and the loss (`loss_points`) of a form.
        bound: largest allowed loss in points.
        rows: token ids of the sentences for timing.
        max_seq_len: maximum length of the model in tokens.
        allowed: recipes to try.
        accuracy_control: try accuracy control if the static recipes lose more than the bound.
    """

    folder: Path
    task: str
    calibration: list[list[int]]
    measure: Measure
    bound: float
    rows: list[list[int]]
    max_seq_len: int
    allowed: tuple[str, ...]
    accuracy_control: bool = False

    def run(self, form: str) -> dict[str, Any]:
        """Move the best graph of an int8 form to its folder; returns its measurements and those of all tried recipes.

        If no recipe stays within the bound, the one with the smallest loss is chosen, and `require_inside` refuses it.
        """
        scratch = self.folder / f"{form}.scratch"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        tried: dict[str, dict[str, Any]] = {}
        runs: dict[str, Forward] = {}
        for name in (name for name in RECIPES[form] if name in self.allowed):
            kept = any(found["loss_points"] <= self.bound for found in tried.values())
            if not (kept and name in FALLBACKS):
                tried[name], runs[name] = self._try(form, name, scratch / name)
        static = [found for name, found in tried.items() if name.startswith("static")]
        if self.accuracy_control and static and all(found["loss_points"] > self.bound for found in static):
            tried[CONTROLLED], runs[CONTROLLED] = self._try(form, CONTROLLED, scratch / CONTROLLED)
        took = race({name: (form, run) for name, run in runs.items()}, self.rows, self.max_seq_len)
        for name in tried:
            tried[name]["latency_ms"] = round(took[name], 4)
        winner = choose(tried, self.bound)
        runs.clear()  # release the engines, which map the files that are moved next
        final = (self.folder / FORMS[form]).parent
        shutil.rmtree(final, ignore_errors=True)
        final.parent.mkdir(exist_ok=True)
        os.rename(scratch / winner, final)
        shutil.rmtree(scratch)
        shown = ("latency_ms", "loss_points", "size_mb")
        table = {name: {key: found[key] for key in shown} for name, found in tried.items()}
        return {**tried[winner], "recipe": winner, "tried": table}

    def _try(self, form: str, name: str, folder: Path) -> tuple[dict[str, Any], Forward]:
        source = (self.folder / FORMS[FLOAT[form]]).parent
        if name == CONTROLLED:
            write_int8_controlled(source, self.calibration, self._kept, 1 - self.bound / 100, folder)
        else:
            RECIPES[form][name](Quantising(source, self.task, self.calibration), folder)
        without_tokenizer(folder)
        run = open_graph(folder / Path(FORMS[form]).name, form, TASKS[self.task], default_threads())
        size_mb = sum(file.stat().st_size for file in folder.iterdir() if file.is_file()) / 1e6
        return {**self.measure(run), "size_mb": round(size_mb, 2)}, run

    def _kept(self, expected: np.ndarray, got: np.ndarray) -> float:
        return answers_kept(self.task, expected, got)


def first_recipe(form: str) -> Recipe:
    """The recipe of an int8 form that latency tables use."""
    return next(iter(RECIPES[form].values()))


def without_tokenizer(folder: Path) -> None:
    """Remove the tokenizer copy of the exporters: the export folder holds one for all forms."""
    for name in (*TOKENIZER_FILES, "vocab.txt", "vocab.json"):
        (folder / name).unlink(missing_ok=True)


def choose(tried: dict[str, dict[str, Any]], bound: float) -> str:
    """The fastest recipe that loses at most `bound` points; if there is none, the one with the smallest loss."""
    inside = [name for name, found in tried.items() if found["loss_points"] <= bound]
    if inside:
        return min(inside, key=lambda name: tried[name]["latency_ms"])
    return min(tried, key=lambda name: tried[name]["loss_points"])


def require_inside(form: str, found: dict[str, Any], bound: float) -> None:
    """Refuse an int8 form that loses more than `bound` points.

    Raises:
        BoundError: the loss exceeds the bound; the message lists the tried recipes.
    """
    if found["loss_points"] > bound:
        tried = ", ".join(f"{name} {row['loss_points']:.2f}" for name, row in found["tried"].items())
        raise BoundError(
            f"{form}: loses {found['loss_points']:.2f} points of {found['loss_of']} on labelled texts, the limit is {bound:g} "
            f"(tried: {tried}); raise --max_loss_points, add calibration sentences in these languages, or give --allow_loss true"
        )
