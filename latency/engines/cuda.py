"""Engines of the latency table on a GPU: eager PyTorch, and the same model replayed as a CUDA graph.

A small encoder on a GPU is bound by kernel launches. So there are three times per length: the eager call with
synchronisation, which `kdnas.latency.timing` measures as on every engine; the replay of a CUDA graph, which launches all
kernels at once; and the time that the device is busy, a lower bound for any way of launching.

Sentences are on the GPU before the clock starts, and hidden states stay there. TF32 keeps PyTorch's default: off in matrix
products, so `cuda-f32` computes in full float32.
"""

import statistics
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from kdnas.errors import KdnasError, UsageError
from kdnas.latency.engines import REFERENCE, Call, random_sentence
from kdnas.latency.engines.pytorch import torch_dtype
from kdnas.models.arch import Arch
from kdnas.models.engine import Engine, Precision, engine_name

if TYPE_CHECKING:
    import torch

WARM_UPS = 3  # PyTorch's own count; handles, workspaces and kernel choices must exist before a capture
REPEATS = 11

product_chain = None  # the host's peaks are the CPU's

Forward = Callable[[], "torch.Tensor"]


class Graph(Protocol):
    """Work that was captured once and can be replayed."""

    output: "torch.Tensor"  # each replay overwrites it

    def replay(self) -> None:
        """Queue the captured work again; allocates nothing and does not wait."""

    def free(self) -> None:
        """Free the captured work and its memory; neither it nor its output may be used afterwards."""


class Device(Protocol):
    """The operations that need a GPU."""

    where: str  # PyTorch's name of the device

    def synchronise(self) -> None:
        """Wait until all queued work is done."""

    def on_side_stream(self, forward: Forward) -> None:
        """Run on the stream that captures, ordered after what came before and ahead of what follows."""

    def capture(self, forward: Forward) -> Graph:
        """Capture the work that a function queues; none of it runs before the first replay."""

    def wall_ms(self, call: Call, sentence: Mapping[str, Any]) -> float:
        """Milliseconds of one call on the host's clock."""

    def busy_ms(self, replay: Callable[[], None]) -> float:
        """Milliseconds that the device works on one replay, by its own clock."""


def require(engine: Engine) -> None:
    """Refuse an engine that this host's GPU cannot run.

    Raises:
        UsageError: PyTorch finds no GPU, or one that could only emulate bf16.
    """
    import torch

    if not torch.cuda.is_available():
        raise UsageError(
            f"engine '{engine}': no GPU is visible to PyTorch {torch.__version__}; install a build for CUDA and NVIDIA's "
            f"driver, check that CUDA_VISIBLE_DEVICES hides no GPU, or take {engine_name('pytorch', engine.precision)}"
        )
    if engine.precision is Precision.BF16 and not torch.cuda.is_bf16_supported(including_emulation=False):
        major, minor = torch.cuda.get_device_capability()
        raise UsageError(
            f"engine '{engine}': {torch.cuda.get_device_name()} has compute capability {major}.{minor} and would emulate "
            f"bf16, which GPUs compute from 8.0 on; take {engine.float_name}"
        )


def make_models(engine: Engine, config: Any, seed: int, threads: int, graphs: Path) -> "CudaModels":
    """Models on the current GPU; neither threads nor graphs are needed."""
    return CudaModels(engine, config, seed)


def device_record() -> dict[str, Any]:
    """The GPU for the host record: name, compute capability, memory in GiB, multiprocessors, driver, CUDA of PyTorch."""
    import torch

    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    return {
        "gpu": properties.name,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "gpu_memory_gib": round(properties.total_memory / 2**30, 1),
        "multiprocessors": properties.multi_processor_count,
        "driver": driver_version(),
        "cuda": torch.version.cuda,
    }


def driver_version() -> str | None:
    """Version of NVIDIA's driver, one for all GPUs of a host; None if its tool is not installed or fails."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = answer.stdout.split()
    return lines[0] if answer.returncode == 0 and lines else None


class CudaModels:
    """Stock models on a GPU.

    Args:
        engine: `cuda-f32` or `cuda-bf16`, checked with `require`.
        config: configuration of the teacher.
        seed: seed of the random weights.
        device: the device; None takes the current CUDA device.
    """

    def __init__(self, engine: Engine, config: Any, seed: int, device: Device | None = None) -> None:
        import torch

        from kdnas.latency.timing import ModelMaker

        self._config = config
        self._device = device or CudaDevice()
        self._there = torch.device(self._device.where)
        self._maker = ModelMaker(config, seed, torch_dtype(engine))

    def student(self, arch: Arch) -> Call:
        """An architecture in the teacher's family, called eagerly."""
        with self._there:  # made on the device, so that the embedding table is moved once and shared
            return EagerCall(self._maker.student(arch), self._device)

    def teacher(self) -> Call:
        """The teacher's shape, called eagerly."""
        with self._there:
            return EagerCall(self._maker.model(self._config), self._device)

    def reference(self) -> Call:
        """The reference shape, called eagerly."""
        return self.student(REFERENCE)

    def sentence(self, length: int, seed: int) -> dict[str, "torch.Tensor"]:
        """Random token ids without padding on the GPU: input_ids and attention_mask, both (1, length) int64."""
        import torch

        values = random_sentence(length, self._config, seed)
        return {name: torch.from_numpy(value).to(self._there) for name, value in values.items()}

    def columns(self, call: Call, inputs: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
        """Times of CUDA graphs, one graph per length, each freed before the next.

        Args:
            call: result of `student` or `teacher`.
            inputs: K results of `sentence`.

        Returns:
            K medians of `REPEATS` each. `graph_ms` is the time of a replay on the host's clock: copy of the sentence into the
            graph's buffers, replay, and wait for the device. `device_ms` is the time of the replay between two events of the
            device: without copies, launch gaps of the host and waiting.

        Raises:
            KdnasError: a length could not be captured. End the process in this case: PyTorch's allocator may be left capturing.
        """
        from kdnas.latency.timing import no_garbage_collection

        assert isinstance(call, EagerCall)
        with no_garbage_collection():
            medians = [bucket_ms(call.model, sentence, self._device) for sentence in inputs]
        return {"graph_ms": [graph for graph, _ in medians], "device_ms": [device for _, device in medians]}


@dataclass(frozen=True)
class EagerCall:
    """A model as users call it, with the tokenizer's mask, until its output is ready.

    Transformers checks on the host whether the mask (1, T) hides a token, and drops it if not: a wait for the device before the
    first layer, and attention without a mask. Both are part of the time, as in real use.
    """

    model: Any
    device: Device

    def __call__(self, **sentence: "torch.Tensor") -> Any:
        output = self.model(**sentence)
        self.device.synchronise()
        return output


@dataclass(frozen=True)
class Bucket:
    """A model captured at one length T; sentences up to it are padded to it."""

    buffers: dict[str, "torch.Tensor"]
    graph: Graph
    device: Device

    def __call__(self, **sentence: "torch.Tensor") -> "torch.Tensor":
        """Hidden states (1, T, D) of a padded sentence, both tensors (1, T); the next call overwrites them."""
        for name, buffer in self.buffers.items():
            buffer.copy_(sentence[name])
        self.graph.replay()
        self.device.synchronise()
        return self.graph.output


def capture_bucket(model: Any, sentence: Mapping[str, "torch.Tensor"], device: Device) -> Bucket:
    """Capture a model at a sentence's length, after `WARM_UPS` runs on the capturing stream.

    Raises:
        KdnasError: the model does an operation that a capture forbids, or memory ran out.
    """
    buffers = {name: value.clone() for name, value in sentence.items()}
    forward = partial(masked_states, model, **buffers)
    try:
        for _ in range(WARM_UPS):
            device.on_side_stream(forward)
        graph = device.capture(forward)
    except (RuntimeError, ValueError) as error:
        cause = error.__context__ or error  # ending a failed capture raises a second, less informative error
        length, reason = buffers["input_ids"].shape[1], str(cause).split("\n")[0]
        raise KdnasError(f"no CUDA graph of {type(model).__name__} at {length} tokens: {reason}") from error
    return Bucket(buffers, graph, device)


def masked_states(model: Any, input_ids: "torch.Tensor", attention_mask: "torch.Tensor") -> "torch.Tensor":
    """Hidden states (1, T, D) of ids and mask, both (1, T), without reading their values on the host.

    The model would read a mask (1, T) on the host (see `EagerCall`), which a capture forbids, and without a mask the graph would
    accept only sentences of exactly T tokens. A mask per query, (1, 1, T), always enters attention.
    """
    return model(input_ids=input_ids, attention_mask=attention_mask[:, None]).last_hidden_state


def bucket_ms(model: Any, sentence: Mapping[str, "torch.Tensor"], device: Device) -> tuple[float, float]:
    """Median milliseconds of a bucket's call and of the device's work in it; its memory is free afterwards."""
    bucket = capture_bucket(model, sentence, device)
    try:
        bucket(**sentence)  # the first replay loads the graph onto the device
        pairs = [(device.wall_ms(bucket, sentence), device.busy_ms(bucket.graph.replay)) for _ in range(REPEATS)]
    finally:
        bucket.graph.free()
    return statistics.median(wall for wall, _ in pairs), statistics.median(busy for _, busy in pairs)


class CudaGraph:
    """A captured graph with its output."""

    def __init__(self, graph: Any, output: "torch.Tensor") -> None:
        self._graph, self.output = graph, output
        self.replay: Callable[[], None] = graph.replay

    def free(self) -> None:
        import torch

        del self.output
        self._graph.reset()
        torch.cuda.empty_cache()  # otherwise the graph's own pool stays reserved


class CudaDevice:
    """The current CUDA device."""

    where = "cuda"

    def __init__(self) -> None:
        import torch

        self._cuda: Any = torch.cuda
        # One stream warms up and captures: cuBLAS keeps a handle and a workspace per stream, and those created
        # during a capture would lie in the graph's own memory.
        self._side = self._cuda.Stream()

    def synchronise(self) -> None:
        self._cuda.synchronize()

    def on_side_stream(self, forward: Forward) -> None:
        self._side.wait_stream(self._cuda.current_stream())
        with self._cuda.stream(self._side):
            forward()
        self._cuda.current_stream().wait_stream(self._side)

    def capture(self, forward: Forward) -> Graph:
        graph = self._cuda.CUDAGraph()
        # The outer context restores the stream after a failed capture; PyTorch's own context does not.
        with self._cuda.stream(self._side), self._cuda.graph(graph, stream=self._side):
            output = forward()
        return CudaGraph(graph, output)

    def wall_ms(self, call: Call, sentence: Mapping[str, Any]) -> float:
        from kdnas.latency.timing import call_ms

        return call_ms(call, sentence)

    def busy_ms(self, replay: Callable[[], None]) -> float:
        start, end = self._cuda.Event(enable_timing=True), self._cuda.Event(enable_timing=True)
        replay()  # keeps the device busy while the next is queued; otherwise its launch lies between the events
        start.record()
        replay()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end))
