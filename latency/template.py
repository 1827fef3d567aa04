"""Exports the templates of `kdnas.latency.rewriting`: one tiny model of the students' family per activation.

Run as `python -m kdnas.latency.template TEACHER FORM FOLDER`, in a separate process: the exporters' memory and threads must not
stay in the measuring process.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np

from kdnas.errors import KdnasError
from kdnas.latency.rewriting import TEMPLATE, TEMPLATE_POSITIONS, TEMPLATE_VOCABULARY
from kdnas.models.arch import Activation
from kdnas.models.engine import engine_of
from kdnas.store.host import child_environment

CALIBRATION_LENGTHS = range(8, 48, 2)


def write_templates(teacher: Path, form: str, folder: Path) -> Path:
    """Write templates of one form for all activations to `folder/form`; existing ones are kept.

    Raises:
        KdnasError: the exporters failed.
    """
    target = folder / form
    if target.is_dir():
        return target
    scratch = folder / f"{form}.scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    done = subprocess.run(
        [sys.executable, "-m", "kdnas.latency.template", str(teacher), form, str(scratch)],
        capture_output=True,
        text=True,
        env=child_environment(),
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise KdnasError(f"latency-table: the {form} graph could not be exported: {last}")
    os.rename(scratch, target)
    return target


def export_templates(teacher: Path, form: str, folder: Path) -> None:
    """Write one folder per activation, each with `openvino_model.xml` and `.bin`, or with one `.onnx` file."""
    import torch

    from kdnas.export.engines import RUNTIMES
    from kdnas.export.recipes import Quantising, first_recipe
    from kdnas.export.silence import silence_exporters

    task, engine = "feature-extraction", engine_of(form)
    for activation in get_args(Activation):
        with silence_exporters():
            torch.manual_seed(0)
            model = as_if_trained(template_model(teacher, activation))
            plain = folder / f"{activation}.f32"
            RUNTIMES[engine.runtime].write(model, task, plain)
            if engine.quantised:
                first_recipe(form)(Quantising(plain, task, _calibration(model.config)), folder / activation)
            else:
                os.rename(plain, folder / activation)
            shutil.rmtree(plain, ignore_errors=True)


def template_model(teacher: Path, activation: str) -> Any:
    """A randomly initialised model with the template's sizes in the family of the teacher's students, without pooler."""
    from dataclasses import replace

    from kdnas.models.student import new_encoder, student_config
    from kdnas.models.teacher import load_config

    config = student_config(replace(TEMPLATE, activation=activation), load_config(teacher))
    config.vocab_size, config.max_position_embeddings = TEMPLATE_VOCABULARY, TEMPLATE_POSITIONS
    return new_encoder(config).eval()


def as_if_trained(model: Any) -> Any:
    """The model with noise on all weights: exporters merge or omit biases of only 0 and scales of only 1."""
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return model


def _calibration(config: Any) -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [rng.integers(5, config.vocab_size, length).tolist() for length in CALIBRATION_LENGTHS]


if __name__ == "__main__":
    export_templates(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
