"""Speed of the exported shape 4,12,576,768 against XLM-R base (12,12,768,3072), both with 250,002 tokens and random weights.

Run as `python tests/bench/export_speed.py [ROUNDS [PART,...]]`: all engines alternate on the same ids in one run. The parts are
`ids`, the median latency of one text of 16 to 128 tokens, the ratios that have targets with their spread over the rounds, and the
fraction of the host's matrix-product peak at 128 tokens; `text`, the same from text, with a Unigram tokenizer of 250,002
pieces; and `batches`, the throughput at the best batch size.
"""

import gc
import random
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from export_memory import synthetic_tokenizer
from transformers import AutoModel

from kdnas.export.encoder import TOKENIZER, Encoder, read_encoder
from kdnas.export.engines import open_graph
from kdnas.export.fast_tokenizer import write_fast_tokenizer
from kdnas.export.folder import FORMS, TASKS, graph_of
from kdnas.export.onnx_form import write_onnx, write_onnx_int8
from kdnas.export.openvino_form import write_int8, write_openvino
from kdnas.export.silence import silence_exporters
from kdnas.latency.engines import openvino
from kdnas.latency.roofline import SHAPES, product_flops
from kdnas.models.arch import Arch
from kdnas.models.engine import ENGINES
from kdnas.models.student import student_config
from kdnas.models.teacher import SHAPE, load_config, resolve_shape
from kdnas.store.host import default_threads, has_bf16, host_line

STUDENT = Arch(4, 12, 576, 768, "gelu")
TASK = "feature-extraction"
LENGTHS = (16, 32, 64, 128)
PARTS = ("ids", "text", "batches")
BATCHES = (1, 2, 4, 8, 16, 32, 64)
CALLS = 8  # timed calls of one engine in a row, after as many untimed calls that load its weights into the cache
RATIOS = {
    "student openvino-int8": ("teacher pytorch-f32", "teacher openvino-f32", "teacher openvino-int8"),
    "student openvino-f32": ("teacher openvino-f32",),
    "student onnxruntime-int8": ("teacher pytorch-f32",),
}

Call = Callable[[np.ndarray, np.ndarray], Any]


def forms_of(model: Any, folder: Path, names: tuple[str, ...]) -> dict[str, Call]:
    """The eager model, and its exports in these forms."""
    rng = np.random.default_rng(0)
    rows = [rng.integers(5, model.config.vocab_size, length).tolist() for length in range(8, 128, 4)]
    paths = {form: (folder / graph).parent for form, graph in FORMS.items()}
    with silence_exporters():
        write_openvino(model, TASK, paths["openvino-f32"])
        write_int8(paths["openvino-f32"], TASK, rows, paths["openvino-int8"])
        if "onnxruntime-f32" in names:
            write_onnx(model, TASK, paths["onnxruntime-f32"])
            write_onnx_int8(paths["onnxruntime-f32"], paths["onnxruntime-int8"])
    graph = {name: folder / graph_of(name) for name in names}
    calls: dict[str, Call] = {name: open_graph(graph[name], name, TASKS[TASK], default_threads()) for name in names}
    return {"pytorch-f32": eager(model), **calls}


def eager(model: Any) -> Call:
    """The model in PyTorch, called with numpy arrays like the other engines."""

    def call(ids: np.ndarray, mask: np.ndarray) -> Any:
        return model(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask))

    return call


def main(rounds: int, parts: set[str]) -> None:
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
        with torch.inference_mode():
            if "ids" in parts:
                for length in LENGTHS:
                    took = time_ids(engines, ids_of(1, length), rounds)
                    show_ratios(f"{length} tokens", took)
                show_fractions(engines, LENGTHS[-1], rounds)
            if "text" in parts:
                time_text(engines, rounds, Path(scratch))
            if "batches" in parts:
                time_batches(engines, rounds // 6 + 1)


def ids_of(batch: int, length: int) -> np.ndarray:
    """Random token ids (batch, length)."""
    return np.random.default_rng(length).integers(5, 250_000, (batch, length))


def time_ids(engines: dict[str, Call], ids: np.ndarray, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each engine in each round."""
    mask = np.ones_like(ids)
    return take_turns({name: partial(call, ids, mask) for name, call in engines.items()}, rounds)


def take_turns(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds per call of each function in each round, in a new random order per round; the first round is a warm-up."""
    took: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name in random.sample(list(calls), len(calls)):
            for _ in range(CALLS):
                calls[name]()
            start = time.perf_counter_ns()
            for _ in range(CALLS):
                calls[name]()
            if number:
                took[name].append((time.perf_counter_ns() - start) / 1e6 / CALLS)
    return took


def show_ratios(title: str, took: dict[str, list[float]]) -> None:
    """Print the latencies, and the ratios that have targets."""
    print(f"{title}: " + ", ".join(f"{name} {median(values):.2f} ms" for name, values in took.items()))
    for name, others in RATIOS.items():
        for other in others:
            if name in took and other in took:
                ratios = np.array(took[other]) / np.array(took[name])
                low, middle, high = np.percentile(ratios, [5, 50, 95])
                print(f"  {name} is {middle:.1f} [{low:.1f}, {high:.1f}] times as fast as {other}", flush=True)


def show_fractions(engines: dict[str, Call], length: int, rounds: int) -> None:
    """Print the fraction of the host's peak matrix-product rate that the student reaches at this length, timed alternately."""
    ids = ids_of(1, length)
    for engine in ("openvino-int8", "openvino-f32"):
        student = partial(engines[f"student {engine}"], ids, np.ones_like(ids))
        chains = {
            str(shape): openvino.product_chain(ENGINES[engine], default_threads(), *shape)(length) for shape in SHAPES
        }
        took = take_turns(chains | {"student": student}, rounds)
        rates = {str(shape): product_flops(length, *shape) / np.array(took[str(shape)]) / 1e6 for shape in SHAPES}
        best = max(rates, key=lambda name: float(median(rates[name])))
        reached = STUDENT.flops(length) / np.array(took["student"]) / 1e6
        low, middle, high = np.percentile(100 * reached / rates[best], [5, 50, 95])
        print(
            f"  student {engine} at {length} tokens: {median(reached):.0f} GFLOP/s, {middle:.0f} [{low:.0f}, {high:.0f}] % of "
            f"the {median(rates[best]):.0f} GFLOP/s of matrix products {best}",
            flush=True,
        )


def time_text(engines: dict[str, Call], rounds: int, scratch: Path) -> None:
    """Time calls from text: students with the encoder of their export, the teacher with `tokenizers`."""
    tokenizer, words = synthetic_tokenizer(250_002)
    tokenizer.save(str(scratch / TOKENIZER))
    fast = write_fast_tokenizer(scratch, words)
    encoders = {"student": read_encoder(scratch, fast["file"] if fast else TOKENIZER), "teacher": read_encoder(scratch)}
    text = " ".join(words[:20])
    count = len(tokenizer.encode(text).ids)

    def call(encoder: Encoder, engine: Call) -> Any:
        ids = np.array([[*encoder.prefix, *encoder.ids([text])[0], *encoder.suffix]])
        return engine(ids, np.ones_like(ids))

    wanted = {*RATIOS, "teacher pytorch-f32"}
    took = take_turns({name: partial(call, encoders[name.split()[0]], engines[name]) for name in wanted}, rounds)
    show_ratios(f"from text, {count} tokens", took)


def time_batches(engines: dict[str, Call], rounds: int) -> None:
    """Print the sentences of 32 tokens per second at the best batch size."""
    wanted = {name: engines[name] for name in (*RATIOS, "teacher pytorch-f32", "teacher openvino-f32")}
    best: dict[str, tuple[float, int]] = {}
    for batch in BATCHES:
        for name, values in time_ids(wanted, ids_of(batch, 32), rounds).items():
            best[name] = max(best.get(name, (0.0, 0)), (1e3 * batch / median(values), batch))
    shown = (f"{name} {rate:,.0f} per second (batch {batch})" for name, (rate, batch) in best.items())
    print("sentences of 32 tokens: " + ", ".join(shown), flush=True)


if __name__ == "__main__":
    chosen = set(sys.argv[2].split(",")) if len(sys.argv) > 2 else set(PARTS)
    if unknown := chosen - set(PARTS):
        sys.exit(f"unknown part {', '.join(sorted(unknown))}; choose from {', '.join(PARTS)}")
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 30, chosen)
