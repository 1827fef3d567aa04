"""The search for the best int8 recipe: each is written, measured and timed; the fastest within the loss bound is chosen.

The choice uses the loss on dev rows (`dev_loss_points`), the report and the refusal that on test rows (`loss_points`).
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdnas.errors import BoundError
from kdnas.export.ahead import Ahead
from kdnas.export.engines import Forward, open_graph
from kdnas.export.folder import FORMS, TASKS
from kdnas.export.judge import answers_kept
from kdnas.export.openvino_form import write_int8_controlled
from kdnas.export.race import race
from kdnas.export.recipes import FALLBACKS, FLOAT, RECIPES, Quantising, without_tokenizer, write_recipe
from kdnas.store.host import default_threads

CONTROLLED = "static-accuracy-control"
Measure = Callable[[Forward], dict[str, Any]]


@dataclass(frozen=True)
class Int8Search:
    """The search for the best recipe of an int8 form.

    Args:
        folder: folder of the export, with the float32 forms.
        task: task of the model.
        calibration: token ids of the calibration sentences.
        measure: measures the differences of a form, and its loss on test and dev rows (`loss_points`, `dev_loss_points`).
        bound: largest allowed loss in points.
        rows: token ids of the sentences for timing.
        max_seq_len: maximum length of the model in tokens.
        allowed: recipes to try.
        accuracy_control: try accuracy control if the static recipes lose more than the bound.
        ahead: a second process that writes recipes.
        multi_label: the labels of a text are independent.
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
    ahead: Ahead | None = None
    multi_label: bool = False

    def write_ahead(self, form: str, begun_here: bool) -> None:
        """Let the second process, if there is one, write recipes of a form.

        Args:
            form: the int8 form, whose float32 form is finished.
            begun_here: this process runs this form first: it writes the first recipe, and the fallbacks if they are needed.
        """
        if self.ahead is None:
            return
        shutil.rmtree(self._folder_ahead(form), ignore_errors=True)
        self._folder_ahead(form).mkdir()
        for number, name in enumerate(self._names(form)):
            if not begun_here or (number > 0 and name not in FALLBACKS):
                self.ahead.write(self._folder_ahead(form) / name, form, name, self._given(form))

    def run(self, form: str) -> dict[str, Any]:
        """Move the best graph of an int8 form to its folder; returns its measurements and those of all tried recipes.

        If no recipe stays within the bound, the one with the smallest loss is chosen, and `require_inside` refuses it.
        """
        scratch = self.folder / f"{form}.scratch"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        tried: dict[str, dict[str, Any]] = {}
        runs: dict[str, Forward] = {}
        for name in self._names(form):
            kept = any(found["dev_loss_points"] <= self.bound for found in tried.values())
            if not (kept and name in FALLBACKS):
                tried[name], runs[name] = self._try(form, name, scratch / name)
        static = [found for name, found in tried.items() if name.startswith("static")]
        if self.accuracy_control and static and all(found["dev_loss_points"] > self.bound for found in static):
            tried[CONTROLLED], runs[CONTROLLED] = self._try(form, CONTROLLED, scratch / CONTROLLED)
        if self.ahead is not None:
            self.ahead.wait()  # timing needs all cores
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
        shutil.rmtree(self._folder_ahead(form), ignore_errors=True)
        shown = ("latency_ms", "loss_points", "dev_loss_points", "size_mb")
        table = {name: {key: found[key] for key in shown} for name, found in tried.items()}
        return {**tried[winner], "recipe": winner, "tried": table}

    def _try(self, form: str, name: str, folder: Path) -> tuple[dict[str, Any], Forward]:
        given, ready = self._given(form), self._folder_ahead(form) / name
        if name == CONTROLLED:
            write_int8_controlled(given.source, self.calibration, self._kept, 1 - self.bound / 100, folder)
        elif self.ahead is not None and self.ahead.has_written(ready):
            os.rename(ready, folder)
        else:
            write_recipe(form, name, given, folder)
        without_tokenizer(folder)
        run = open_graph(folder / Path(FORMS[form]).name, form, TASKS[self.task], default_threads())
        size_mb = sum(file.stat().st_size for file in folder.iterdir() if file.is_file()) / 1e6
        return {**self.measure(run), "size_mb": round(size_mb, 2)}, run

    def _names(self, form: str) -> list[str]:
        return [name for name in RECIPES[form] if name in self.allowed]

    def _given(self, form: str) -> Quantising:
        return Quantising((self.folder / FORMS[FLOAT[form]]).parent, self.task, self.calibration)

    def _folder_ahead(self, form: str) -> Path:
        return self.folder / f"{form}.ahead"

    def _kept(self, expected: np.ndarray, got: np.ndarray) -> float:
        return answers_kept(self.task, expected, got, self.multi_label)


def choose(tried: dict[str, dict[str, Any]], bound: float) -> str:
    """The fastest recipe that loses at most `bound` points on the dev rows; if there is none, the one that loses least there."""
    inside = [name for name, found in tried.items() if found["dev_loss_points"] <= bound]
    if inside:
        return min(inside, key=lambda name: tried[name]["latency_ms"])
    return min(tried, key=lambda name: tried[name]["dev_loss_points"])


def require_inside(form: str, found: dict[str, Any], bound: float) -> None:
    """Refuse an int8 form that loses more than `bound` points on the test rows.

    Raises:
        BoundError: the loss exceeds the bound; the message lists the tried recipes.
    """
    if found["loss_points"] > bound:
        tried = ", ".join(f"{name} {row['loss_points']:.2f}" for name, row in found["tried"].items())
        raise BoundError(
            f"{form}: loses {found['loss_points']:.2f} points of {found['loss_of']} on the test half of the labelled texts, "
            f"the limit is {bound:g} (tried: {tried}); raise --max_loss_points, add calibration sentences in these languages, "
            "or give --allow_loss true"
        )
