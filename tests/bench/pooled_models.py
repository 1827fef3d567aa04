"""Are the models of the latency table as fast as the models that users run?

The models of the table take their weights from one random pool, and its compiled engines run graphs that were rewritten from a
small export. This script times each against a model with its own weights: eager, or exported in the normal way.

Run as `python tests/bench/pooled_models.py [BUILDS] [ENGINE ...]`. Each build creates both models again and runs the same
lengths with them alternately. Prints, for each engine and shape, the ratio of the sums over all lengths: median and range over
the builds.
"""

import random
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from transformers import AutoModel

from kdnas.export.engines import RUNTIMES, open_graph
from kdnas.export.folder import FORMS
from kdnas.export.recipes import Quantising, first_recipe
from kdnas.export.silence import silence_exporters
from kdnas.latency.engines import OUTPUTS, make_models
from kdnas.latency.template import as_if_trained, write_templates
from kdnas.latency.timing import sweep_ms
from kdnas.models.arch import Arch
from kdnas.models.engine import Engine, engine_of
from kdnas.models.student import student_config
from kdnas.models.teacher import BUILTIN, load_config, resolve_teacher
from kdnas.store.host import default_threads, host_line

ENGINES = ("pytorch-f32", "onnxruntime-f32", "onnxruntime-int8", "openvino-f32", "openvino-int8")
ARCHS = (Arch(3, 12, 384, 1024, "relu"), Arch(6, 12, 576, 1024, "gelu"))
LENGTHS = (8, 12, 16, 24, 32, 48, 96)
ROUNDS = 30
TASK = "feature-extraction"


def own_model(arch: Arch, engine: Engine, folder: Path) -> Callable[[], Callable[..., Any]]:
    """A function that loads a model with its own weights, as users run it."""
    torch.manual_seed(1)
    config = student_config(arch, load_config(resolve_teacher(BUILTIN).path))
    model = as_if_trained(AutoModel.from_config(config, add_pooling_layer=False).eval())
    if engine.form is None:
        model.save_pretrained(folder)
        return lambda: AutoModel.from_pretrained(folder, add_pooling_layer=False).eval()
    rng = np.random.default_rng(0)
    rows = [rng.integers(5, config.vocab_size, length).tolist() for length in range(8, 48, 2)]
    with silence_exporters():
        RUNTIMES[engine.runtime].write(model, TASK, folder / "f32")
        if engine.quantised:
            first_recipe(engine.form)(Quantising(folder / "f32", TASK, rows), folder / "int8")
    graph = folder / engine.precision / Path(FORMS[engine.form]).name
    return lambda: open_graph(graph, engine.form, OUTPUTS, default_threads())


def ratio(pooled: Callable[..., Any], own: Callable[..., Any], items: list[dict[str, Any]]) -> float:
    """Time of the pooled model over that of the other: sums over all lengths of the medians over all rounds."""
    took: dict[tuple[int, int], list[float]] = {}
    both = (pooled, own)
    with torch.inference_mode():
        for number in (0, 1):
            sweep_ms(both[number], items)
        for _ in range(ROUNDS):
            for number in random.sample((0, 1), 2):
                order = random.sample(range(len(items)), len(items))
                times = sweep_ms(both[number], [items[order[-1]], *(items[index] for index in order)])[1:]
                for index, time_ms in zip(order, times, strict=True):
                    took.setdefault((number, index), []).append(time_ms)
    sums = [sum(median(took[number, index]) for index in range(len(items))) for number in (0, 1)]
    return sums[0] / sums[1]


def main(builds: int, engines: Sequence[str]) -> None:
    """Time all and print."""
    torch.set_num_threads(default_threads())
    print(host_line())
    teacher = resolve_teacher(BUILTIN)
    for engine in map(engine_of, engines):
        for arch in ARCHS:
            with tempfile.TemporaryDirectory() as scratch:
                load = own_model(arch, engine, Path(scratch) / "own")
                graphs = Path(scratch) / "graphs"
                if engine.form is not None:
                    graphs = write_templates(teacher.path, engine.form, graphs)
                models = make_models(engine, load_config(teacher.path), 0, default_threads(), graphs)
                items = [models.sentence(length, 0) for length in LENGTHS]
                ratios = [ratio(models.student(arch), load(), items) for _ in range(builds)]
            shown = f"{median(ratios):.3f} [{min(ratios):.3f}, {max(ratios):.3f}]"
            print(f"{engine!s:17} {arch.name:24} pooled over own {shown} over {builds} builds", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5, sys.argv[2:] or ENGINES)
