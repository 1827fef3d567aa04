"""ONNX Runtime, compiled from rewritten graphs with the session's own settings. Its peaks are OpenVINO's."""

from pathlib import Path
from typing import Any

from kdnas.export.engines import compile_onnxruntime
from kdnas.latency.engines import OUTPUTS, REFERENCE, Call, random_sentence
from kdnas.latency.engines.openvino import product_chain as product_chain
from kdnas.latency.rewriting import activation_folders, graph_sizes, make_pool, teacher_shape
from kdnas.models.arch import Arch
from kdnas.models.engine import Engine, require_native

require = require_native


def make_models(engine: Engine, config: Any, seed: int, threads: int, graphs: Path) -> "OnnxruntimeModels":
    """Models of rewritten graphs, in the graphs' precision."""
    return OnnxruntimeModels(config, seed, threads, graphs)


class OnnxruntimeModels:
    """Students and teacher, in one part of a pool of weights.

    Sessions of ONNX Runtime pack matrices into their own memory and read only tables from the pool.
    """

    def __init__(self, config: Any, seed: int, threads: int, graphs: Path) -> None:
        from kdnas.latency.onnx_graphs import OnnxTemplate

        self._config, self._threads = config, threads
        self._templates = {folder.name: OnnxTemplate(folder) for folder in activation_folders(graphs)}
        (self._part,) = make_pool(config, seed, []).parts

    def student(self, arch: Arch) -> Call:
        sizes = graph_sizes(arch, self._config)
        graph, weights = self._templates[arch.activation].write(sizes, self._part)
        return compile_onnxruntime(graph, OUTPUTS, self._threads, weights)

    def teacher(self) -> Call:
        return self.student(teacher_shape(self._config))

    def reference(self) -> Call:
        return self.student(REFERENCE)

    def sentence(self, length: int, seed: int) -> dict[str, Any]:
        return random_sentence(length, self._config, seed)
