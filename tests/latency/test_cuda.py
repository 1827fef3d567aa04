"""CUDA engines: most tests use a mock device; the others need a GPU."""

import statistics
import subprocess
import sys
import weakref
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import BertConfig, PretrainedConfig, RobertaConfig

from kdnas.errors import KdnasError, UsageError
from kdnas.latency.engines import Call, cuda
from kdnas.latency.engines.cuda import REPEATS, WARM_UPS, CudaModels, capture_bucket, masked_states
from kdnas.latency.timing import ModelMaker, no_garbage_collection, sweep_ms
from kdnas.models.arch import Arch
from kdnas.models.engine import ENGINES

ARCH = Arch(3, 4, 48, 96, "relu")
SHAPE = {"num_hidden_layers": 4, "num_attention_heads": 4, "hidden_size": 64, "intermediate_size": 128}
CONFIGS = [BertConfig(**SHAPE), RobertaConfig(**SHAPE)]
FAMILIES = pytest.mark.parametrize("config", CONFIGS, ids=["bert", "roberta"])
NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is visible to PyTorch")


class FakeGraph:
    """A replay that runs the function again and overwrites the same output."""

    def __init__(self, forward: Callable[[], torch.Tensor], log: list[str]) -> None:
        self.output = torch.full_like(forward(), torch.nan)  # a capture computes nothing
        self._forward, self._log = forward, log

    def replay(self) -> None:
        self._log.append("replay")
        self.output.copy_(self._forward())

    def free(self) -> None:
        self._log.append("free")
        del self.output


class FakeDevice:
    """The CPU with simulated clocks: wall times 1, 4, 9, ...; device times 100, 50, 33.3, ..."""

    where = "cpu"

    def __init__(self, failing_length: int | None = None) -> None:
        self.log: list[str] = []
        self.walls, self.busies = 0, 0
        self.kept: list[weakref.ref[torch.Tensor]] = []  # a buffer and the output of each capture
        self._failing_length = failing_length

    def synchronise(self) -> None:
        self.log.append("synchronise")

    def on_side_stream(self, forward: Callable[[], torch.Tensor]) -> None:
        self.log.append("warm-up")
        forward()

    def capture(self, forward: Any) -> FakeGraph:
        ids = forward.keywords["input_ids"]
        self.log.append(f"capture {ids.shape[1]}")
        assert not self.alive()
        if ids.shape[1] == self._failing_length:
            error = RuntimeError("operation failed due to a previous error")  # raised at the end of the capture
            error.__context__ = RuntimeError("operation not permitted when stream is capturing\nsearch for the code")
            raise error
        graph = FakeGraph(forward, self.log)
        self.kept += [weakref.ref(ids), weakref.ref(graph.output)]
        return graph

    def alive(self) -> list[torch.Tensor]:
        return [value for value in (kept() for kept in self.kept) if value is not None]

    def wall_ms(self, call: Call, sentence: Mapping[str, Any]) -> float:
        self.log.append("wall")
        call(**sentence)
        self.walls += 1
        return float(self.walls**2)

    def busy_ms(self, replay: Callable[[], None]) -> float:
        self.log.append("busy")
        replay()
        self.busies += 1
        return 100 / self.busies


@pytest.mark.slow
@FAMILIES
def test_student_and_teacher_are_synchronised_eager_calls(config: PretrainedConfig) -> None:
    device = FakeDevice()
    models = CudaModels(ENGINES["cuda-f32"], config, 0, device)
    for call, width in ((models.teacher(), 64), (models.student(ARCH), 48)):
        device.log.clear()
        sentence = models.sentence(9, 0)
        assert list(sentence) == ["input_ids", "attention_mask"]
        assert {(value.shape, value.dtype) for value in sentence.values()} == {((1, 9), torch.int64)}
        with no_garbage_collection():
            states = call(**sentence).last_hidden_state
        assert states.shape == (1, 9, width)
        assert torch.isfinite(states).all()
        assert device.log == ["synchronise"]


@pytest.mark.slow
def test_weights_equal_the_cpu_engine_s_in_the_engine_s_precision() -> None:
    models = CudaModels(ENGINES["cuda-f32"], CONFIGS[0], 3, FakeDevice())
    maker = ModelMaker(CONFIGS[0], 3)
    sentence = models.sentence(7, 0)
    with no_garbage_collection():
        states = models.student(ARCH)(**sentence).last_hidden_state
        assert torch.equal(states, maker.student(ARCH)(**sentence).last_hidden_state)
        half = CudaModels(ENGINES["cuda-bf16"], CONFIGS[0], 3, FakeDevice()).student(ARCH)
        assert half(**sentence).last_hidden_state.dtype == torch.bfloat16


def test_models_are_created_on_the_device() -> None:
    device = FakeDevice()
    device.where = "meta"
    call: Any = CudaModels(ENGINES["cuda-f32"], CONFIGS[0], 0, device).student(ARCH)
    tensors = [*call.model.parameters(), *call.model.buffers()]
    assert {value.device.type for value in tensors} == {"meta"}


def test_columns_are_medians_by_hand() -> None:
    device = FakeDevice()
    models = CudaModels(ENGINES["cuda-f32"], CONFIGS[0], 0, device)
    inputs = [models.sentence(length, 0) for length in (4, 8)]
    columns = models.columns(models.student(ARCH), inputs)
    assert REPEATS == 11  # the medians below are the 6th and the 17th value
    assert columns == {"graph_ms": [36.0, 289.0], "device_ms": [100 / 6, 100 / 17]}
    assert (device.walls, device.busies) == (2 * REPEATS, 2 * REPEATS)


def test_each_length_is_captured_after_warm_ups_and_freed_before_the_next() -> None:
    device = FakeDevice()
    models = CudaModels(ENGINES["cuda-f32"], CONFIGS[0], 0, device)
    models.columns(models.student(ARCH), [models.sentence(length, 0) for length in (4, 8)])
    call = ["replay", "synchronise"]
    measured = [*call, *["wall", *call, "busy", "replay"] * REPEATS, "free"]
    warm = ["warm-up"] * WARM_UPS
    assert device.log == [*warm, "capture 4", *measured, *warm, "capture 8", *measured]
    # The device checks at each capture that the previous one was freed.
    assert len(device.kept) == 4
    assert not device.alive()


@FAMILIES
def test_a_replay_accepts_any_sentence_padded_to_its_length(config: PretrainedConfig) -> None:
    device = FakeDevice()
    models = CudaModels(ENGINES["cuda-f32"], config, 0, device)
    call: Any = models.student(ARCH)
    with no_garbage_collection():
        bucket = capture_bucket(call.model, models.sentence(12, 0), device)
        assert bucket.graph.output.isnan().all()
        static = [bucket.graph.output, *bucket.buffers.values()]
        addresses = [value.data_ptr() for value in static]
        for seed, length in ((0, 12), (1, 12), (2, 7)):
            sentence = models.sentence(length, seed)
            states = bucket(**padded(sentence, 12, config.pad_token_id))
            expected = call(**sentence).last_hidden_state
            assert (states[:, :length] - expected).abs().max() < 1e-5
            assert states is bucket.graph.output
        assert addresses == [value.data_ptr() for value in static]


@pytest.mark.slow
@FAMILIES
def test_a_captured_function_never_reads_values_on_the_host(config: PretrainedConfig) -> None:
    # Meta tensors raise at the operations that a capture forbids.
    model = ModelMaker(config, 0).model(config).to("meta")
    sentence = {name: torch.ones(1, 9, dtype=torch.int64, device="meta") for name in ("input_ids", "attention_mask")}
    with no_garbage_collection():
        assert masked_states(model, **sentence).shape == (1, 9, 64)
        with pytest.raises(RuntimeError, match="meta"):
            model(**sentence)


def test_a_failed_capture_names_the_length() -> None:
    device = FakeDevice(failing_length=8)
    models = CudaModels(ENGINES["cuda-f32"], CONFIGS[0], 0, device)
    inputs = [models.sentence(length, 0) for length in (4, 8, 16)]
    with pytest.raises(
        KdnasError, match=r"^no CUDA graph of BertModel at 8 tokens: operation not .* capturing$"
    ) as caught:
        models.columns(models.student(ARCH), inputs)
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert device.log.count("free") == 1


def test_a_graph_is_freed_when_its_measurement_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    device = FakeDevice()
    models = CudaModels(ENGINES["cuda-f32"], CONFIGS[0], 0, device)
    monkeypatch.setattr(device, "busy_ms", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        models.columns(models.student(ARCH), [models.sentence(4, 0)])
    assert device.log[-1] == "free"


def test_refused_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match=r"'cuda-bf16': no GPU is visible to PyTorch .* take pytorch-bf16"):
        cuda.require(ENGINES["cuda-bf16"])


def test_emulated_bf16_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    cuda.require(ENGINES["cuda-f32"])
    with pytest.raises(UsageError, match=r"'cuda-bf16': Tesla T4 has compute capability 7\.5 .* take cuda-f32"):
        cuda.require(ENGINES["cuda-bf16"])
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    cuda.require(ENGINES["cuda-bf16"])


def test_device_record(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = SimpleNamespace(name="A10", major=8, minor=6, total_memory=24 * 2**30 - 2**28, multi_processor_count=72)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: gpu)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(cuda, "driver_version", lambda: "570.86.15")
    record = cuda.device_record()
    assert list(record) == ["gpu", "compute_capability", "gpu_memory_gib", "multiprocessors", "driver", "cuda"]
    assert list(record.values()) == ["A10", "8.6", 23.8, 72, "570.86.15", "12.8"]


@pytest.mark.parametrize(
    ("returncode", "stdout", "version"),
    [(0, "570.86.15\n570.86.15\n", "570.86.15"), (9, "failed", None), (0, "", None)],
)
def test_driver_version(monkeypatch: pytest.MonkeyPatch, returncode: int, stdout: str, version: str | None) -> None:
    answer = SimpleNamespace(returncode=returncode, stdout=stdout)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: answer)
    assert cuda.driver_version() == version
    monkeypatch.undo()
    monkeypatch.setenv("PATH", "")
    assert cuda.driver_version() is None  # the tool is not installed


def test_import_does_not_load_torch() -> None:
    check = "import sys, kdnas.latency.engines.cuda; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check]).returncode == 0


@NEEDS_GPU
@FAMILIES
@pytest.mark.parametrize(("engine", "tolerance"), [("cuda-f32", 1e-3), ("cuda-bf16", 0.1)])  # bf16 has 8 bits
def test_a_replay_on_the_gpu_equals_the_eager_call(config: PretrainedConfig, engine: str, tolerance: float) -> None:
    models = CudaModels(ENGINES[engine], config, 0)
    call: Any = models.student(ARCH)
    with no_garbage_collection():
        bucket = capture_bucket(call.model, models.sentence(33, 0), call.device)
        for seed, length in ((1, 33), (2, 20)):
            sentence = models.sentence(length, seed)
            assert sentence["input_ids"].is_cuda
            states = bucket(**padded(sentence, 33, config.pad_token_id))[:, :length]
            assert (states - call(**sentence).last_hidden_state).abs().max() < tolerance
        bucket.graph.free()


@NEEDS_GPU
@pytest.mark.parametrize("engine", ["cuda-f32", "cuda-bf16"])
def test_columns_on_the_gpu(engine: str) -> None:
    models = CudaModels(ENGINES[engine], CONFIGS[0], 0)
    student, inputs = models.student(Arch(4, 12, 576, 768)), [models.sentence(length, 0) for length in (8, 64)]
    with no_garbage_collection():
        eager = [
            statistics.median(times) for times in zip(*(sweep_ms(student, inputs) for _ in range(20)), strict=True)
        ]
    columns = models.columns(student, inputs)
    for wall_ms, graph_ms, device_ms in zip(eager, columns["graph_ms"], columns["device_ms"], strict=True):
        assert 0 < device_ms <= wall_ms
        assert device_ms <= graph_ms
    allocated = torch.cuda.memory_allocated()
    models.columns(student, inputs)
    assert torch.cuda.memory_allocated() == allocated


@NEEDS_GPU
def test_a_failed_capture_on_the_gpu_names_the_length_and_leaves_the_stream() -> None:
    # In a separate process: PyTorch's allocator may be left capturing.
    assert subprocess.run([sys.executable, "-c", FAILS]).returncode == 0


FAILS = """
import torch
from kdnas.errors import KdnasError
from kdnas.latency.engines.cuda import CudaDevice, capture_bucket
def looks_on_the_host(input_ids, attention_mask):
    return input_ids if attention_mask.all() else attention_mask
stream = torch.cuda.current_stream()
try:
    capture_bucket(looks_on_the_host, {n: torch.ones(1, 8).cuda() for n in ("input_ids", "attention_mask")}, CudaDevice())
except KdnasError as error:
    assert "at 8 tokens" in str(error) and "captur" in str(error), error
    assert torch.cuda.current_stream() == stream
else:
    raise AssertionError("captured")
"""


def padded(sentence: dict[str, torch.Tensor], length: int, pad_id: int) -> dict[str, torch.Tensor]:
    """A sentence padded on the right, as by a tokenizer."""
    more = (0, length - sentence["input_ids"].shape[1])
    pad = torch.nn.functional.pad
    return {
        "input_ids": pad(sentence["input_ids"], more, value=pad_id),
        "attention_mask": pad(sentence["attention_mask"], more),
    }
