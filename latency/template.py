"""Export the templates that `latency.graphs` rewrites: one tiny model of the teacher's family for each activation.

Run as `python -m latency.template TEACHER FORM FOLDER`, in a process of its own: the exporters' memory and threads must
not stay with the one that measures.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np

from kdnas.arch import Activation
from kdnas.errors import KdnasError
from latency.graphs import TEMPLATE, TEMPLATE_POSITIONS, TEMPLATE_VOCABULARY

CALIBRATION_LENGTHS = range(8, 48, 2)
ROOT = Path(__file__).resolve().parent.parent


def write_templates(teacher: Path, form: str, folder: Path) -> Path:
    """Templates of one form for all activations, in `folder/form`; those already there are kept.

    Raises:
        KdnasError: the exporters failed.
    """
    target = folder / form
    if target.is_dir():
        return target
    scratch = folder / f"{form}.scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", "latency.template", str(teacher), form, str(scratch)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise KdnasError(f"latency-table: the {form} graph could not be exported: {last}")
    os.rename(scratch, target)
    return target


def export_templates(teacher: Path, form: str, folder: Path) -> None:
    """Write one folder an activation, each with `openvino_model.xml` and `.bin`."""
    import torch

    from export.openvino_form import write_int8, write_openvino
    from export.run import quiet

    for activation in get_args(Activation):
        with quiet():
            torch.manual_seed(0)
            model = template_model(teacher, activation)
            plain = folder / f"{activation}.f32"
            write_openvino(model, "feature-extraction", plain)
            if form.endswith("int8"):
                write_int8(plain, "feature-extraction", _calibration(model.config), folder / activation)
                shutil.rmtree(plain)
            else:
                os.rename(plain, folder / activation)


def template_model(teacher: Path, activation: str) -> Any:
    """A randomly initialised model with the template's sizes in the teacher's family, without pooler."""
    from dataclasses import replace

    from transformers import AutoModel

    from kdnas.student import student_config
    from kdnas.teacher import load_config

    config = student_config(replace(TEMPLATE, activation=activation), load_config(teacher))
    config.vocab_size, config.max_position_embeddings = TEMPLATE_VOCABULARY, TEMPLATE_POSITIONS
    return AutoModel.from_config(config, add_pooling_layer=False).eval()


def _calibration(config: Any) -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [rng.integers(5, config.vocab_size, length).tolist() for length in CALIBRATION_LENGTHS]


if __name__ == "__main__":
    export_templates(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
