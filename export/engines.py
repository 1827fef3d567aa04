"""Graphs as functions, in each runtime with the settings of a session.

`RUNTIMES` defines for each runtime of `kdnas.models.engine.ENGINES` that runs exports how graphs are written and opened, and how
calls are padded.
"""

import mmap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdnas.errors import UsageError
from kdnas.models.engine import Engine, Precision, engine_of
from kdnas.text.padding import LENGTH_STEP

# ONNX Runtime runs fused sums and layer norms of int8 graphs on one thread: calls take 2 to 9 % longer (results/export).
SLOWER_FUSED = ["SkipLayerNormFusion"]
# (input_ids, attention_mask, token_type_ids or None) -> the output; several outputs are stacked along a new last axis.
Forward = Callable[..., np.ndarray]


def open_graph(
    graph: Path, form: str, outputs: Sequence[str], threads: int, spin: bool = False, streams: int = 1
) -> Forward:
    """A graph as a function.

    Args:
        graph: the graph file.
        form: name of the engine that runs it.
        outputs: names of the outputs to return.
        threads: threads of all calls together.
        spin: as in `compile_onnxruntime`; other runtimes ignore it.
        streams: maximum number of parallel calls; the threads are divided among them.

    Raises:
        UsageError: the graph is missing or damaged, or lacks an output.
    """
    if not graph.is_file():
        raise UsageError(f"{graph}: missing; export the model again")
    engine = engine_of(form)
    try:
        return RUNTIMES[engine.runtime].open(graph, engine, outputs, threads, spin, streams)
    except Exception as error:  # runtimes raise RuntimeError or a custom class for a damaged graph
        first = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise UsageError(f"{graph}: cannot be loaded ({first}); export the model again") from error


def openvino_settings(precision: Precision, threads: int, streams: int = 1) -> dict[str, str]:
    """OpenVINO's settings: for latency with one stream, else for throughput. int8 graphs compute all other operations in f32."""
    return {
        "PERFORMANCE_HINT": "LATENCY" if streams == 1 else "THROUGHPUT",
        "NUM_STREAMS": str(streams),
        "INFERENCE_NUM_THREADS": str(threads),
        "INFERENCE_PRECISION_HINT": Precision.BF16 if precision is Precision.BF16 else Precision.F32,
    }


def open_openvino(
    graph: Path, engine: Engine, outputs: Sequence[str], threads: int, spin: bool, streams: int
) -> Forward:
    """A `Forward` of an `openvino_model.xml` with its `.bin`, with low memory use.

    The weights are mapped, not read: rows of a table are loaded when a token needs them. The first call packs the matrices into
    the engine's own memory, so their mapped pages are released after it.
    """
    import openvino

    with graph.with_suffix(".bin").open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    weights = openvino.Tensor(np.frombuffer(mapped, dtype=np.uint8), shared_memory=True)
    model = openvino.Core().read_model(graph.read_bytes(), weights)
    run = compile_openvino(model, engine.precision, outputs, threads, streams, alive=weights)
    shortest = np.zeros((1, LENGTH_STEP), dtype=np.int64)
    run(shortest, np.ones_like(shortest))
    mapped.madvise(mmap.MADV_DONTNEED)
    return run


def compile_openvino(
    graph: Any, precision: Precision, outputs: Sequence[str], threads: int, streams: int = 1, alive: Any = None
) -> Forward:
    """A `Forward` with the outputs of these names.

    Args:
        graph: an `openvino.Model`, or the path of one.
        precision: precision of the computation; bf16 only on request, although it is OpenVINO's default on hosts that have it.
        outputs: names of the outputs to return.
        threads: threads of all calls together.
        streams: maximum number of parallel calls.
        alive: object to keep alive while the function is in use, for example the model's memory.
    """
    import openvino

    compiled = openvino.Core().compile_model(graph, "CPU", openvino_settings(precision, threads, streams))
    names = [port.get_any_name() for port in compiled.inputs]
    indices = [[name in port.get_names() for port in compiled.outputs].index(True) for name in outputs]
    # A request serves one caller at a time. Idle requests wait here; there are at most as many as parallel callers.
    idle: list[Any] = []
    kept = (compiled, alive)

    def run(input_ids: np.ndarray, attention_mask: np.ndarray, token_type_ids: np.ndarray | None = None) -> np.ndarray:
        try:
            request = idle.pop()
        except IndexError:
            request = kept[0].create_infer_request()
        request.infer(_feeds(names, input_ids, attention_mask, token_type_ids), share_inputs=True, share_outputs=True)
        # Copied, because the next caller overwrites the request's memory.
        result = _joined([np.array(request.get_output_tensor(index).data) for index in indices])
        idle.append(request)
        return result

    return run


def open_onnxruntime(
    graph: Path, engine: Engine, outputs: Sequence[str], threads: int, spin: bool, streams: int
) -> Forward:
    """A `Forward` of a `model.onnx`, in the precision of the graph."""
    return compile_onnxruntime(str(graph), outputs, threads // streams, spin=spin)


def compile_onnxruntime(
    graph: str | bytes,
    outputs: Sequence[str],
    threads: int,
    weights: Mapping[str, np.ndarray] | None = None,
    spin: bool = False,
) -> Forward:
    """A `Forward` with the outputs of these names.

    Args:
        graph: path of a `model.onnx`, or its bytes.
        outputs: names of the outputs to return.
        threads: threads per call.
        weights: initialisers outside the graph, by name; they are read in place and must not change while the function is in
            use.
        spin: let the threads wait for the next call in a busy loop. For consecutive calls without pause; the threads occupy their
            cores for some milliseconds after each call. Within a call they always spin.

    Raises:
        ValueError: the graph lacks an output.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    if not spin:  # threads that keep spinning take the cores from the next workload
        options.add_session_config_entry("session.force_spinning_stop", "1")
    values = {name: onnxruntime.OrtValue.ortvalue_from_numpy(value) for name, value in (weights or {}).items()}
    if values:  # for the optimiser; `add_initializer` below avoids a copy in the session
        options.add_external_initializers(list(values), list(values.values()))
    for name, value in values.items():
        options.add_initializer(name, value)
    session = onnxruntime.InferenceSession(
        graph, options, providers=["CPUExecutionProvider"], disabled_optimizers=SLOWER_FUSED
    )
    names = [port.name for port in session.get_inputs()]
    if absent := set(outputs) - {port.name for port in session.get_outputs()}:
        raise ValueError(f"no output '{', '.join(sorted(absent))}'")
    alive = (session, values)  # a session holds no reference to the weights that it reads in place

    def run(input_ids: np.ndarray, attention_mask: np.ndarray, token_type_ids: np.ndarray | None = None) -> np.ndarray:
        return _joined(alive[0].run(list(outputs), _feeds(names, input_ids, attention_mask, token_type_ids)))

    return run


def _feeds(
    names: list[str], input_ids: np.ndarray, attention_mask: np.ndarray, token_type_ids: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Inputs by the graph's input names; token types are all 0 for single texts."""
    feeds = {"input_ids": input_ids, "attention_mask": attention_mask}
    if "token_type_ids" in names:
        feeds["token_type_ids"] = np.zeros_like(input_ids) if token_type_ids is None else token_type_ids
    return feeds


def _joined(outputs: list[np.ndarray]) -> np.ndarray:
    """The output itself, or several outputs stacked along a new last axis."""
    return outputs[0] if len(outputs) == 1 else np.stack(outputs, axis=-1)


def write_onnx(model: Any, task: str, folder: Path) -> None:
    """Write a model's float32 graph for ONNX Runtime."""
    from kdnas.export import onnx_form

    onnx_form.write_onnx(model, task, folder)


def write_openvino(model: Any, task: str, folder: Path) -> None:
    """Write a model's float32 graph for OpenVINO."""
    from kdnas.export import openvino_form

    openvino_form.write_openvino(model, task, folder)


@dataclass(frozen=True)
class Runtime:
    """How a runtime's graphs are written and run.

    Args:
        open: `(graph, engine, outputs, threads, spin, streams) -> Forward`, as in `open_graph`.
        write: `(model, task, folder)`, writes the float32 graph of a model in PyTorch.
        length_step: a single text is padded to a multiple of it. In OpenVINO a change of shape costs time and each new shape
            memory; ONNX Runtime gains nothing from padding.
        batch_step: the same for a batch of several texts; shapes of batches rarely repeat anyway.
    """

    open: Callable[[Path, Engine, Sequence[str], int, bool, int], Forward]
    write: Callable[[Any, str, Path], None]
    length_step: int = 1
    batch_step: int = 1


RUNTIMES = {
    "openvino": Runtime(open_openvino, write_openvino, LENGTH_STEP, 4),
    "onnxruntime": Runtime(open_onnxruntime, write_onnx),
}
