"""What is timed: the very sessions that users get, for any architecture, with random weights.

Compiled engines run graphs that `kdnas.latency.rewriting` makes of the exporter's own; the session is `kdnas.export.session`'s.
"""

from collections.abc import Callable, Sequence
from copy import copy
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from kdnas.errors import UsageError
from kdnas.extras import require_extras
from kdnas.latency.openvino_graphs import GraphTemplate
from kdnas.latency.rewriting import PoolPart, Sizes, WeightPool, part_bytes, table_bytes
from kdnas.models.arch import Arch, SearchSpace
from kdnas.models.family import shape_of, student_shape_of
from kdnas.store.host import cpu_info, has_bf16

# Engine to the packages whose versions its figures depend on.
ENGINES = {
    "pytorch-f32": ("torch", "transformers"),
    "pytorch-bf16": ("torch", "transformers"),
    "openvino-f32": ("openvino", "optimum"),
    "openvino-bf16": ("openvino", "optimum"),
    "openvino-int8": ("openvino", "optimum", "nncf"),
    "onnxruntime-f32": ("onnxruntime", "optimum"),
    "onnxruntime-int8": ("onnxruntime", "optimum"),
    "cuda-f32": ("torch", "transformers"),
    "cuda-bf16": ("torch", "transformers"),
}
GRAPH_ENGINES = ("openvino", "onnxruntime")
TIMED_VOCABULARY = 65_536  # rows; 75 MB at the least width
# All latencies are taken relative to this shape, timed beside them. It is of the middle of the space: what a neighbour of a
# virtual machine takes, of the last-level cache say, then slows it about as much as what it is compared with. With a reference
# of 12 layers of 768, windows of one model differed twice as much.
REFERENCE = Arch(6, 12, 384, 1536, "gelu")
OUTPUTS = ("last_hidden_state",)

Call = Callable[..., Any]


class Models(Protocol):
    """Makes runnable models of one engine; a model is called with `input_ids` and `attention_mask`, both (1, T)."""

    def student(self, arch: Arch) -> Call:
        """An architecture in the teacher's family; the student made before it must no longer be used."""

    def teacher(self) -> Call:
        """The teacher's shape, under the same condition."""

    def reference(self) -> Call:
        """The shape that all are compared with; it stays usable."""

    def sentence(self, length: int, seed: int) -> dict[str, Any]:
        """Random token ids, no padding."""


def require_engine(engine: str) -> None:
    """Refuse what this host lacks.

    Raises:
        UsageError: an unknown engine, or one that this host lacks or would only emulate.
    """
    if engine not in ENGINES:
        raise UsageError(f"engine '{engine}': allowed are {', '.join(ENGINES)}")
    if engine.startswith("cuda"):
        from kdnas.latency.cuda import require_cuda

        require_cuda(engine)
    elif engine.endswith("-bf16") and not has_bf16():
        raise UsageError(
            f"engine '{engine}': this CPU ({cpu_info()[0]}) has neither AVX512-BF16 nor AMX, bf16 would be emulated; "
            f"take {engine.replace('bf16', 'f32')}"
        )
    if needs_graphs(engine):
        require_extras(f"engine '{engine}'", ("export",))


def needs_graphs(engine: str) -> bool:
    """Whether an engine runs exported graphs."""
    return engine.startswith(GRAPH_ENGINES)


def graph_form(engine: str) -> str:
    """The exported form that an engine runs: bf16 is a run-time precision of the f32 graph."""
    return engine.replace("-bf16", "-f32")


def make_models(engine: str, config: Any, seed: int, threads: int, graphs: Path) -> Models:
    """Models of one engine.

    A call reads as many rows of the word embeddings as there are tokens, from a table that is larger than any cache. Rows
    beyond `TIMED_VOCABULARY` only cost memory and the time to load a model, so they are left out
    (`tests/bench/embedding_rows.py` compares).

    Args:
        engine: one of `ENGINES`.
        config: configuration of the teacher.
        seed: of the random weights.
        threads: that one call may use.
        graphs: folder with the templates of `kdnas.latency.template`, one an activation; PyTorch needs none.
    """
    config = copy(config)
    config.vocab_size = min(config.vocab_size, TIMED_VOCABULARY)
    if engine.startswith("openvino"):
        return OpenvinoModels(engine, config, seed, threads, graphs)
    if engine.startswith("onnxruntime"):
        return OnnxruntimeModels(config, seed, threads, graphs)
    if engine.startswith("cuda"):
        from kdnas.latency.cuda import CudaModels

        return CudaModels(engine, config, seed)
    return PytorchModels(engine, config, seed, threads)


class PytorchModels:
    """Eager PyTorch, stock models."""

    def __init__(self, engine: str, config: Any, seed: int, threads: int) -> None:
        import torch

        from kdnas.latency.timing import ModelMaker

        torch.set_num_threads(threads)
        self._config = config
        self._maker = ModelMaker(config, seed, torch.bfloat16 if engine.endswith("bf16") else torch.float32)

    def student(self, arch: Arch) -> Call:
        return self._maker.student(arch)

    def teacher(self) -> Call:
        return self._maker.model(self._config)

    def reference(self) -> Call:
        return self._maker.student(REFERENCE)

    def sentence(self, length: int, seed: int) -> dict[str, Any]:
        import torch

        return {name: torch.from_numpy(value) for name, value in random_sentence(length, self._config, seed).items()}


class OpenvinoModels:
    """OpenVINO, compiled from rewritten graphs with the session's own settings."""

    def __init__(self, engine: str, config: Any, seed: int, threads: int, graphs: Path) -> None:
        self._engine, self._config, self._threads = engine, config, threads
        self._templates = {folder.name: GraphTemplate(folder) for folder in activation_folders(graphs)}
        self._part, self._reference_part = make_pool(config, seed, [REFERENCE]).parts

    def student(self, arch: Arch) -> Call:
        return self._compile(arch, self._part)

    def teacher(self) -> Call:
        return self.student(teacher_shape(self._config))

    def reference(self) -> Call:
        return self._compile(REFERENCE, self._reference_part)

    def sentence(self, length: int, seed: int) -> dict[str, Any]:
        return random_sentence(length, self._config, seed)

    def _compile(self, arch: Arch, part: PoolPart) -> Call:
        import openvino

        from kdnas.export.engines import compile_openvino

        sizes = graph_sizes(arch, self._config)
        xml = self._templates[arch.activation].write(sizes, part)
        model = openvino.Core().read_model(xml, openvino.Tensor(part.bytes, shared_memory=True))
        return compile_openvino(model, self._engine, OUTPUTS, self._threads)


class OnnxruntimeModels:
    """ONNX Runtime, likewise. Its sessions pack matrices into memory of their own and read only tables from the pool.

    So one part of it serves the teacher and all students.
    """

    def __init__(self, config: Any, seed: int, threads: int, graphs: Path) -> None:
        from kdnas.latency.onnx_graphs import OnnxTemplate

        self._config, self._threads = config, threads
        self._templates = {folder.name: OnnxTemplate(folder) for folder in activation_folders(graphs)}
        (self._part,) = make_pool(config, seed, []).parts

    def student(self, arch: Arch) -> Call:
        from kdnas.export.engines import compile_onnxruntime

        sizes = graph_sizes(arch, self._config)
        graph, weights = self._templates[arch.activation].write(sizes, self._part)
        return compile_onnxruntime(graph, OUTPUTS, self._threads, weights)

    def teacher(self) -> Call:
        return self.student(teacher_shape(self._config))

    def reference(self) -> Call:
        return self.student(REFERENCE)

    def sentence(self, length: int, seed: int) -> dict[str, Any]:
        return random_sentence(length, self._config, seed)


def activation_folders(graphs: Path) -> list[Path]:
    """The templates' folders, each named for its activation."""
    return sorted(folder for folder in graphs.iterdir() if folder.is_dir())


def largest_student() -> Arch:
    """An architecture with as many weights as any of the search space."""
    space = SearchSpace()
    return Arch(max(space.layers), 12, max(space.hidden), max(space.ffn))


def graph_sizes(arch: Arch, config: Any) -> Sizes:
    """Sizes of a student's graph, from the teacher's configuration."""
    sizes = student_shape_of(config)
    return Sizes(arch, sizes.vocabulary, sizes.position_rows)


def make_pool(config: Any, seed: int, others: Sequence[Arch]) -> WeightPool:
    """A pool whose first part holds any student or the teacher, and further parts these others."""
    largest, teacher, sizes = largest_student(), teacher_shape(config), student_shape_of(config)
    parts = [max(part_bytes(largest), part_bytes(teacher)), *map(part_bytes, others)]
    tables = table_bytes(max(largest.hidden, teacher.hidden), sizes.vocabulary, sizes.position_rows)
    return WeightPool(parts, tables, seed)


def teacher_shape(config: Any) -> Arch:
    """The teacher as an architecture; graphs are of the family of its students, so that of MPNet has no relative positions.

    Raises:
        UsageError: a graph cannot be made of it.
    """
    arch = shape_of(config).arch
    if arch.layers < 3:
        raise UsageError(f"the teacher has {arch.layers} layers; compiled engines are measured from 3 layers on")
    return arch


def random_sentence(length: int, config: Any, seed: int) -> dict[str, np.ndarray]:
    """One sentence of random token ids, no padding: input_ids and attention_mask, both (1, length) int64."""
    rng = np.random.default_rng([seed, length])
    ids = rng.integers(0, config.vocab_size, length)
    pad_id = config.pad_token_id or 0
    ids[ids == pad_id] = (pad_id + 1) % config.vocab_size  # RoBERTa would not count padding as a position
    return {"input_ids": ids[None], "attention_mask": np.ones((1, length), dtype=np.int64)}
