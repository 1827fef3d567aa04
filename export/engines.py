"""Graphs as functions: each runtime with the settings that every session has.

`RUNTIMES` says of each runtime of `kdnas.models.engine.ENGINES` that runs exports how a graph is written and opened, and how
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

# Sums and layer norms of int8 graphs that ONNX Runtime fuses run on one thread: calls take 2 to 9 % longer (results/export).
SLOWER_FUSED = ["SkipLayerNormFusion"]
# (input_ids, attention_mask, token_type_ids or none) -> the output; several outputs lie along a new last axis.
Forward = Callable[..., np.ndarray]


def open_graph(
    graph: Path, form: str, outputs: Sequence[str], threads: int, spin: bool = False, streams: int = 1
) -> Forward:
    """A graph as a function.

    Args:
        graph: the file.
        form: name of the engine that runs it.
        outputs: names of the wanted outputs.
        threads: threads of all calls together.
        spin: as in `compile_onnxruntime`; other runtimes ignore it.
        streams: calls that may run at once, each with its fraction of the threads.

    Raises:
        UsageError: the graph is missing or damaged, or has no such output.
    """
    if not graph.is_file():
        raise UsageError(f"{graph}: missing; export the model again")
    engine = engine_of(form)
    try:
        return RUNTIMES[engine.runtime].open(graph, engine, outputs, threads, spin, streams)
    except Exception as error:  # runtimes raise plain RuntimeError or their own class for a damaged graph
        first = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise UsageError(f"{graph}: cannot be loaded ({first}); export the model again") from error


def openvino_settings(precision: Precision, threads: int, streams: int = 1) -> dict[str, str]:
    """How OpenVINO runs a graph: one call at a time as fast as it goes, or several; int8 graphs compute the rest in float32."""
    return {
        "PERFORMANCE_HINT": "LATENCY" if streams == 1 else "THROUGHPUT",
        "NUM_STREAMS": str(streams),
        "INFERENCE_NUM_THREADS": str(threads),
        "INFERENCE_PRECISION_HINT": Precision.BF16 if precision is Precision.BF16 else Precision.F32,
    }


def open_openvino(
    graph: Path, engine: Engine, outputs: Sequence[str], threads: int, spin: bool, streams: int
) -> Forward:
    """A `Forward` of an `openvino_model.xml` with its `.bin`, which holds no memory that it has no more use for.

    The weights are mapped, not read: rows of a table come into memory as tokens ask for them. Matrices are packed into memory
    of the engine's own by the first call, so their pages are let go after it.
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
        precision: bf16 is computed only where it is asked for, though hosts that can would by themselves.
        outputs: names of the wanted outputs.
        threads: threads of all calls together.
        streams: calls that may run at once.
        alive: what must not be freed while the function is in use: the model's own memory, say.
    """
    import openvino

    compiled = openvino.Core().compile_model(graph, "CPU", openvino_settings(precision, threads, streams))
    names = [port.get_any_name() for port in compiled.inputs]
    indices = [[name in port.get_names() for port in compiled.outputs].index(True) for name in outputs]
    # A request may serve one caller at a time: idle ones wait here, and there are never more than callers at once.
    idle: list[Any] = []
    kept = (compiled, alive)

    def run(input_ids: np.ndarray, attention_mask: np.ndarray, token_type_ids: np.ndarray | None = None) -> np.ndarray:
        try:
            request = idle.pop()
        except IndexError:
            request = kept[0].create_infer_request()
        request.infer(_feeds(names, input_ids, attention_mask, token_type_ids), share_inputs=True, share_outputs=True)
        # The request's memory is the next caller's.
        result = _joined([np.array(request.get_output_tensor(index).data) for index in indices])
        idle.append(request)
        return result

    return run


def open_onnxruntime(
    graph: Path, engine: Engine, outputs: Sequence[str], threads: int, spin: bool, streams: int
) -> Forward:
    """A `Forward` of a `model.onnx`; the precision is the graph's own."""
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
        outputs: names of the wanted outputs.
        threads: threads that one call may use.
        weights: initialisers that lie outside of the graph, by name; they are read in place, never copied whole, so they
            must not change while the function is in use.
        spin: let the threads wait for the next call busily. For calls without pause; it takes the cores from others for some
            milliseconds after each call. Within a call they always do.

    Raises:
        ValueError: there is no such output.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    if not spin:  # threads that go on spinning would steal the cores from whatever runs next
        options.add_session_config_entry("session.force_spinning_stop", "1")
    values = {name: onnxruntime.OrtValue.ortvalue_from_numpy(value) for name, value in (weights or {}).items()}
    if values:  # the first call tells the optimiser of them, without the others the session would copy them
        options.add_external_initializers(list(values), list(values.values()))
    for name, value in values.items():
        options.add_initializer(name, value)
    session = onnxruntime.InferenceSession(
        graph, options, providers=["CPUExecutionProvider"], disabled_optimizers=SLOWER_FUSED
    )
    names = [port.name for port in session.get_inputs()]
    if absent := set(outputs) - {port.name for port in session.get_outputs()}:
        raise ValueError(f"no output '{', '.join(sorted(absent))}'")
    alive = (session, values)  # a session holds no reference to what it reads in place

    def run(input_ids: np.ndarray, attention_mask: np.ndarray, token_type_ids: np.ndarray | None = None) -> np.ndarray:
        return _joined(alive[0].run(list(outputs), _feeds(names, input_ids, attention_mask, token_type_ids)))

    return run


def _feeds(
    names: list[str], input_ids: np.ndarray, attention_mask: np.ndarray, token_type_ids: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Inputs by the graph's own names; BERT's token types are all 0 for single texts."""
    feeds = {"input_ids": input_ids, "attention_mask": attention_mask}
    if "token_type_ids" in names:
        feeds["token_type_ids"] = np.zeros_like(input_ids) if token_type_ids is None else token_type_ids
    return feeds


def _joined(outputs: list[np.ndarray]) -> np.ndarray:
    """The output itself, or several along a new last axis."""
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
        length_step: the padded width of one text is a multiple of it. A change of shape costs OpenVINO time, and each new shape
            memory; ONNX Runtime has nothing to gain from tokens that are not there.
        batch_step: the same of several texts together, hardly two of which have one shape anyway.
    """

    open: Callable[[Path, Engine, Sequence[str], int, bool, int], Forward]
    write: Callable[[Any, str, Path], None]
    length_step: int = 1
    batch_step: int = 1


RUNTIMES = {
    "openvino": Runtime(open_openvino, write_openvino, LENGTH_STEP, 4),
    "onnxruntime": Runtime(open_onnxruntime, write_onnx),
}
