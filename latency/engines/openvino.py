"""OpenVINO, compiled from rewritten graphs with the session's own settings."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from kdnas.errors import KdnasError
from kdnas.export.engines import compile_openvino, openvino_settings
from kdnas.latency.engines import CHAIN, OUTPUTS, REFERENCE, Call, Chain, random_sentence
from kdnas.latency.openvino_graphs import GraphTemplate
from kdnas.latency.rewriting import PoolPart, activation_folders, graph_sizes, make_pool, teacher_shape
from kdnas.models.arch import Arch
from kdnas.models.engine import Engine, Precision, require_native

# OpenVINO's names of the precisions of executed products.
EXECUTED = {Precision.F32: {"f32"}, Precision.BF16: {"bf16"}, Precision.INT8: {"i8", "u8"}}

require = require_native


def make_models(engine: Engine, config: Any, seed: int, threads: int, graphs: Path) -> "OpenvinoModels":
    """Models of rewritten graphs."""
    return OpenvinoModels(engine, config, seed, threads, graphs)


class OpenvinoModels:
    """Students, teacher and reference, each in a separate part of one pool of weights."""

    def __init__(self, engine: Engine, config: Any, seed: int, threads: int, graphs: Path) -> None:
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

        sizes = graph_sizes(arch, self._config)
        xml = self._templates[arch.activation].write(sizes, part)
        model = openvino.Core().read_model(xml, openvino.Tensor(part.bytes, shared_memory=True))
        return compile_openvino(model, self._engine.precision, OUTPUTS, self._threads)


def product_chain(engine: Engine, threads: int, inner: int, outer: int) -> Chain:
    """Makes, for a number of tokens, a call of a compiled graph of CHAIN products, from `inner` to `outer` and back.

    Raises:
        KdnasError: the engine computed the products in another precision.
    """
    compiled = compile_chain(engine, threads, inner, outer)
    found = executed_precisions(compiled)
    if not found or not found <= EXECUTED[engine.precision]:
        raise KdnasError(
            f"engine '{engine}': it computed products in {', '.join(sorted(found)) or 'an unknown precision'}"
        )

    def make(tokens: int) -> Callable[[], object]:
        import openvino

        request = compiled.create_infer_request()
        states = np.random.default_rng(tokens).random((tokens, inner), dtype=np.float32)
        request.set_input_tensor(openvino.Tensor(states))
        return lambda: request.infer(share_outputs=True)

    return make


def compile_chain(engine: Engine, threads: int, inner: int, outer: int) -> Any:
    """The compiled graph, with the settings of `kdnas.export.session`."""
    import openvino
    from openvino import opset13 as ops

    rng = np.random.default_rng(0)
    states = entry = ops.parameter([-1, inner], np.float32)
    quantised = engine.quantised
    for index in range(CHAIN):
        rows, columns = (inner, outer) if index % 2 else (outer, inner)
        weights = rng.standard_normal((rows, columns), dtype=np.float32) / np.float32(columns**0.5)
        factor: Any = ops.constant(weights)
        if quantised:  # as NNCF writes it: unsigned 8-bit activations and signed weights
            reach = np.abs(weights).max()
            factor = ops.fake_quantize(factor, -reach, reach, -reach, reach, 255)
            low, high = np.float32(0), np.float32(1)
            states = ops.fake_quantize(states, low, high, low, high, 256)
        states = ops.matmul(states, factor, False, True)
    model = openvino.Model([states], [entry], "products")
    return openvino.Core().compile_model(model, "CPU", openvino_settings(engine.precision, threads))


def executed_precisions(compiled: Any) -> set[str]:
    """Precisions in which a compiled graph computes its products, for example `{"i8"}`."""
    found = set()
    for node in compiled.get_runtime_model().get_ops():
        record = node.get_rt_info()
        if record["layerType"].astype(str) in ("FullyConnected", "MatMul"):
            found.add(record["runtimePrecision"].astype(str))
    return found
