"""Models that cost nothing to initialise, and the clock around their forward pass."""

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from transformers import AutoModel, PretrainedConfig, PreTrainedModel

from kdnas.arch import Arch
from kdnas.student import student_config

POOL_VALUES = 4_000_000
REFERENCE_MS = 60.0
WINDOW_MS = 450.0
ROUNDS = (4, 15)


class ModelMaker:
    """Makes stock models with random weights quickly: values come from one shared pool, embeddings are shared.

    Layer weights are copied into tensors of their own, so that they lie in memory as a freshly loaded model's do. The
    word embeddings, of which a forward pass reads only as many rows as there are tokens, are views of one table.

    Args:
        teacher: configuration of the teacher; its family, vocabulary and positions are the students'.
        seed: seed of the pool.
    """

    def __init__(self, teacher: PretrainedConfig, seed: int) -> None:
        self.teacher = teacher
        generator = torch.Generator().manual_seed(seed)
        # The initialiser's spread, and nothing so close to zero that products become denormal and slow.
        self._pool = torch.randn(POOL_VALUES, generator=generator) * 0.02
        self._pool[self._pool.abs() < 1e-6] = 1e-3
        self._table = torch.empty(0)
        self._place = 0

    def student(self, arch: Arch) -> PreTrainedModel:
        """The architecture in the teacher's family."""
        return self.model(student_config(arch, self.teacher))

    def model(self, config: PretrainedConfig) -> PreTrainedModel:
        """A model of this configuration without pooler, frozen, in evaluation mode, float32."""
        with torch.device("meta"):
            model = AutoModel.from_config(config, add_pooling_layer=False)
        for module in model.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                if isinstance(module, nn.Embedding) and parameter.shape[0] == config.vocab_size:
                    value = self._embeddings(*parameter.shape)
                elif isinstance(module, nn.LayerNorm):
                    value = torch.ones(parameter.shape) if name == "weight" else torch.zeros(parameter.shape)
                else:
                    value = self._values(parameter.shape)
                setattr(module, name, nn.Parameter(value, requires_grad=False))
            for name, buffer in list(module.named_buffers(recurse=False)):
                module.register_buffer(name, _buffer(name, buffer), persistent=False)
        return model.eval()

    def _embeddings(self, rows: int, width: int) -> torch.Tensor:
        if self._table.numel() < rows * width:
            self._table = self._values(torch.Size((rows * width,)))
        return self._table[: rows * width].view(rows, width)

    def _values(self, shape: torch.Size) -> torch.Tensor:
        """A new tensor filled from the pool, read on from where the last one ended."""
        result = torch.empty(shape.numel())
        filled = 0
        while filled < len(result):
            count = min(len(result) - filled, POOL_VALUES - self._place)
            result[filled : filled + count] = self._pool[self._place : self._place + count]
            filled += count
            self._place = (self._place + count) % POOL_VALUES
        return result.view(shape)


def _buffer(name: str, like: torch.Tensor) -> torch.Tensor:
    """The index buffers of BERT-like embeddings; they have no others."""
    if name == "position_ids":
        return torch.arange(like.shape[-1]).expand(like.shape)
    return torch.zeros(like.shape, dtype=like.dtype)


def sentence(length: int, config: PretrainedConfig, seed: int) -> dict[str, torch.Tensor]:
    """One sentence of random token ids, no padding: input_ids and attention_mask, both (1, length) int64."""
    rng = np.random.default_rng([seed, length])
    ids = rng.integers(0, config.vocab_size, length)
    pad_id = config.pad_token_id or 0
    ids[ids == pad_id] = (pad_id + 1) % config.vocab_size  # RoBERTa would not count padding as a position
    return {"input_ids": torch.from_numpy(ids)[None], "attention_mask": torch.ones(1, length, dtype=torch.int64)}


@contextmanager
def quiet() -> Iterator[None]:
    """No garbage collection and no autograd while a window is timed."""
    gc.collect()
    gc.disable()
    try:
        with torch.inference_mode():
            yield
    finally:
        gc.enable()


def call_ms(model: Callable[..., object], item: dict[str, torch.Tensor]) -> float:
    """Milliseconds of one forward pass."""
    start = time.perf_counter_ns()
    model(**item)
    return (time.perf_counter_ns() - start) / 1e6


def sweep_ms(model: Callable[..., object], inputs: Sequence[dict[str, torch.Tensor]]) -> list[float]:
    """Milliseconds of one forward pass over each input, in turn."""
    return [call_ms(model, item) for item in inputs]


def window(
    model: Callable[..., object], inputs: Sequence[dict[str, torch.Tensor]], window_ms: float = WINDOW_MS
) -> list[list[float]]:
    """Time a model: sweeps over all inputs, so that a burst of the host hits no length alone.

    The first sweep pays for what is done once per length and does not count. Then as many follow as the window holds,
    within `ROUNDS`.

    Returns:
        (rounds, inputs) milliseconds.
    """
    with quiet():
        sweep_ms(model, inputs)
        rounds: list[list[float]] = []
        spent_ms = 0.0
        while len(rounds) < ROUNDS[0] or (spent_ms < window_ms and len(rounds) < ROUNDS[1]):
            rounds.append(sweep_ms(model, inputs))
            spent_ms += sum(rounds[-1])
        return rounds


def reference_window(model: Callable[..., object], item: dict[str, torch.Tensor]) -> float:
    """Median milliseconds of the reference model at one length, over about `REFERENCE_MS` and at least 5 calls."""
    with quiet():
        once = min(sweep_ms(model, [item, item]))  # its weights come back into the caches
        calls = min(max(int(REFERENCE_MS / max(once, 1e-3)), 5), 30)
        return statistics.median(sweep_ms(model, [item] * calls))
