"""Speed of the exported shape 4,12,576,768 beside XLM-R base (12,12,768,3072), both with 250,002 tokens and random weights.

Run as `python tests/bench/export_speed.py [ROUNDS]`: one text at a time, all engines in turn on the same ids of 16 to 128
tokens, in one run; prints for each length the median latency of each, and the ratios of the aims with their spread by round.
"""

import gc
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from transformers import AutoModel

from export.engines import load_engine
from export.onnx_form import write_onnx, write_onnx_int8
from export.openvino_form import write_int8, write_openvino
from export.run import quiet
from export.session import FORMS, TASKS
from kdnas.arch import Arch
from kdnas.environment import default_threads, has_bf16, host_line
from kdnas.student import student_config
from kdnas.teacher import SHAPE, load_config, resolve_shape

STUDENT = Arch(4, 12, 576, 768, "gelu")
TASK = "feature-extraction"
LENGTHS = (16, 32, 64, 128)
CALLS = 5  # of one engine in a row, after one that brings its weights back
RATIOS = {
    "student openvino-int8": ("teacher pytorch-f32", "teacher openvino-f32", "teacher openvino-int8"),
    "student openvino-f32": ("teacher openvino-f32",),
    "student onnxruntime-int8": ("teacher pytorch-f32",),
}

Call = Callable[[np.ndarray, np.ndarray], Any]


def forms_of(model: Any, folder: Path, names: tuple[str, ...]) -> dict[str, Call]:
    """The model eager, and exported in these forms."""
    rng = np.random.default_rng(0)
    rows = [rng.integers(5, model.config.vocab_size, length).tolist() for length in range(8, 128, 4)]
    paths = {form: (folder / graph).parent for form, graph in FORMS.items()}
    with quiet():
        write_openvino(model, TASK, paths["openvino-f32"])
        write_int8(paths["openvino-f32"], TASK, rows, paths["openvino-int8"])
        if "onnxruntime-f32" in names:
            write_onnx(model, TASK, paths["onnxruntime-f32"])
            write_onnx_int8(paths["onnxruntime-f32"], paths["onnxruntime-int8"])
    graph = {name: folder / FORMS[name.replace("bf16", "f32")] for name in names}
    calls: dict[str, Call] = {name: load_engine(graph[name], name, TASKS[TASK], default_threads()) for name in names}
    return {"pytorch-f32": eager(model), **calls}


def eager(model: Any) -> Call:
    """The model in PyTorch, from numpy arrays like the others."""

    def call(ids: np.ndarray, mask: np.ndarray) -> Any:
        return model(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask))

    return call


def main(rounds: int) -> None:
    """Export, time and print."""
    torch.set_num_threads(default_threads())
    print(host_line(), flush=True)
    teacher = load_config(resolve_shape(SHAPE).path)
    bf16 = ("openvino-bf16",) * has_bf16()
    with tempfile.TemporaryDirectory() as scratch:
        engines: dict[str, Call] = {}
        for name, config, forms in (
            ("student", student_config(STUDENT, teacher), (*FORMS, *bf16)),
            ("teacher", teacher, ("openvino-int8", "openvino-f32", *bf16)),
        ):
            torch.manual_seed(0)
            model = AutoModel.from_config(config, add_pooling_layer=False).eval().requires_grad_(False)
            made = forms_of(model, Path(scratch) / name, forms)
            engines |= {f"{name} {form}": call for form, call in made.items()}
        gc.collect()
        gc.disable()
        for length in LENGTHS:
            time_length(engines, length, rounds)


def time_length(engines: dict[str, Call], length: int, rounds: int) -> None:
    """All engines at one length."""
    rng = np.random.default_rng(length)
    ids = rng.integers(5, 250_000, (1, length))
    mask = np.ones_like(ids)
    took: dict[str, list[float]] = {name: [] for name in engines}
    with torch.inference_mode():
        for number in range(rounds + 1):
            for name in random.sample(list(engines), len(engines)):
                engines[name](ids, mask)
                start = time.perf_counter_ns()
                for _ in range(CALLS):
                    engines[name](ids, mask)
                if number:  # the first round warms up
                    took[name].append((time.perf_counter_ns() - start) / 1e6 / CALLS)
    print(f"{length} tokens: " + ", ".join(f"{name} {median(values):.2f} ms" for name, values in took.items()))
    for name, others in RATIOS.items():
        for other in others:
            ratios = np.array(took[other]) / np.array(took[name])
            low, middle, high = np.percentile(ratios, [5, 50, 95])
            print(f"  {name} is {middle:.1f} [{low:.1f}, {high:.1f}] times as fast as {other}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 30)
