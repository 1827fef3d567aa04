"""Models that initialise quickly, and the timing of their forward pass."""

import gc
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from kdnas.latency.protocol import WARM_CALLS
from kdnas.models.arch import Arch
from kdnas.models.student import new_encoder, student_config

POOL_VALUES = 4_000_000
# Untimed calls before a reference window: otherwise it would be slower after a large model than after a small one.
REFERENCE_WARM_CALLS, REFERENCE_CALLS = 4, 5
WINDOW_MS = 450.0
ROUNDS = (6, 12)  # minimum and maximum sweeps per window
CHUNK, CHUNK_TRIES = 20, 4

Sentence = Mapping[str, Any]  # input_ids and attention_mask, both (1, T), in the engine's format


class ModelMaker:
    """Makes stock models with random weights quickly: values come from one shared pool, and embeddings are shared.

    Layer weights are copied into separate tensors, so that their memory layout is that of a freshly loaded model. The word
    embeddings, of which a forward pass reads one row per token, are views of one table.

    Args:
        teacher: configuration of the teacher, which defines the students' family, vocabulary and positions.
        seed: seed of the pool.
        dtype: type of all weights.
    """

    def __init__(self, teacher: PretrainedConfig, seed: int, dtype: torch.dtype = torch.float32) -> None:
        self.teacher = teacher
        generator = torch.Generator().manual_seed(seed)
        # The initialiser's standard deviation, without values so close to zero that products become denormal and slow.
        self._pool = torch.randn(POOL_VALUES, generator=generator) * 0.02
        self._pool[self._pool.abs() < 1e-6] = 1e-3
        self._pool = self._pool.to(dtype)
        self._table = torch.empty(0, dtype=dtype)
        self._place = 0

    def student(self, arch: Arch) -> PreTrainedModel:
        """The architecture as a student of the teacher."""
        return self.model(student_config(arch, self.teacher))

    def model(self, config: PretrainedConfig) -> PreTrainedModel:
        """A model of this configuration without pooler, frozen, in evaluation mode."""
        with torch.device("meta"):
            model = new_encoder(config)
        for module in model.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                if isinstance(module, nn.Embedding) and parameter.shape[0] == config.vocab_size:
                    value = self._embeddings(*parameter.shape)
                elif isinstance(module, nn.LayerNorm):
                    fill = torch.ones if name == "weight" else torch.zeros
                    value = fill(parameter.shape, dtype=self._pool.dtype)
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
        """A new tensor filled from the pool, starting after the last one's values."""
        result = torch.empty(shape.numel(), dtype=self._pool.dtype)
        filled = 0
        while filled < len(result):
            count = min(len(result) - filled, POOL_VALUES - self._place)
            result[filled : filled + count] = self._pool[self._place : self._place + count]
            filled += count
            self._place = (self._place + count) % POOL_VALUES
        return result.view(shape)


def _buffer(name: str, like: torch.Tensor) -> torch.Tensor:
    """An index buffer of BERT-like embeddings, the only kind of buffer that they have."""
    if name == "position_ids":
        return torch.arange(like.shape[-1]).expand(like.shape)
    return torch.zeros(like.shape, dtype=like.dtype)


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Disable garbage collection and autograd during timing; may be nested."""
    collecting = gc.isenabled()
    if collecting:
        gc.collect()
        gc.disable()
    try:
        with torch.inference_mode():
            yield
    finally:
        if collecting:
            gc.enable()


def call_ms(model: Callable[..., object], item: Sentence) -> float:
    """Milliseconds of one forward pass."""
    start = time.perf_counter_ns()
    model(**item)
    return (time.perf_counter_ns() - start) / 1e6


def sweep_ms(model: Callable[..., object], inputs: Sequence[Sentence]) -> list[float]:
    """Milliseconds of one forward pass over each input, in order."""
    return [call_ms(model, item) for item in inputs]


def window(
    model: Callable[..., object],
    inputs: Sequence[Sentence],
    reference: Callable[[], float],
    rng: random.Random,
    same_length_fractions: Sequence[float] | None = None,
    window_ms: float = WINDOW_MS,
) -> tuple[list[list[float]], list[float]]:
    """Time a model in rounds, each a sweep over all inputs between two reference windows.

    A disturbance longer than a round slows model and reference equally, and a short one affects several lengths. The first sweep
    does the work that is needed once per length and is not timed. Then rounds follow until the window ends, within `ROUNDS`, each
    in a random order of the inputs, as in real use: engines cache what they prepare for a length, and the previous length decides
    how much of it is still in the caches.

    Args:
        model: model to time.
        inputs: one sentence of each of K lengths.
        reference: measures a reference window in ms.
        rng: draws the orders.
        same_length_fractions: probabilities (K,) that the previous sentence has the same length. An engine that does extra work
            at every change of shape is then called twice with each input; the time is the mean of the first call (after another
            shape) and the second (after the same shape), weighted by these fractions. Without them each input is run once.
        window_ms: length of the window: sweeps continue until their calls took this long.

    Returns:
        Milliseconds (R, K) of the sweeps, and (R + 1) of the references around them.
    """
    rounds: list[list[float]] = []
    with no_garbage_collection():
        sweep_ms(model, inputs)
        references = [reference()]
        spent_ms = 0.0
        while len(rounds) < ROUNDS[0] or (spent_ms < window_ms and len(rounds) < ROUNDS[1]):
            order = rng.sample(range(len(inputs)), len(inputs))
            # Warms the caches; the last untimed call has another length than the first timed one.
            sweep_ms(model, [*rng.choices(inputs, k=WARM_CALLS - 1), inputs[order[-1]]])
            times = [0.0] * len(inputs)
            for index in order:
                calls = sweep_ms(model, [inputs[index]] * (1 if same_length_fractions is None else 2))
                spent_ms += sum(calls)
                same = 0.0 if same_length_fractions is None else same_length_fractions[index]
                times[index] = (1 - same) * calls[0] + same * calls[-1]
            rounds.append(times)
            references.append(reference())
        return rounds, references


def reference_window(model: Callable[..., object], item: Sentence) -> float:
    """Median milliseconds of some calls of the reference model at one length, after untimed calls that warm the caches."""
    with no_garbage_collection():
        return statistics.median(
            sweep_ms(model, [item] * (REFERENCE_WARM_CALLS + REFERENCE_CALLS))[REFERENCE_WARM_CALLS:]
        )


def exhaustive(
    model: Callable[..., object], sentences: Sequence[Sentence], reference: Callable[[], float], tolerance: float
) -> tuple[list[float], float, int]:
    """Time every sentence once, in chunks between reference windows; a chunk in which the reference moved is repeated.

    Args:
        model: model to time.
        sentences: S sentences.
        reference: measures a reference window in ms.
        tolerance: largest movement of the reference over a chunk, as a fraction.

    Returns:
        Latencies (S,) in units of the reference window, the median reference window in ms, and the number of repeated chunks.
    """
    values: list[float] = []
    levels: list[float] = []
    again = 0
    with no_garbage_collection():  # once for all chunks: garbage collection takes longer than a chunk
        sweep_ms(model, list({id(item): item for item in sentences}.values()))  # the first run of a length is slow
        before = reference()
        for first in range(0, len(sentences), CHUNK):
            chunk = sentences[first : first + CHUNK]
            tries: list[tuple[float, list[float]]] = []
            while not tries or (tries[-1][0] > tolerance and len(tries) < CHUNK_TRIES):
                warm = [sentences[(first - index) % len(sentences)] for index in range(WARM_CALLS, 0, -1)]
                sweep_ms(model, warm)  # warms the caches
                times = sweep_ms(model, chunk)
                after = reference()
                level = (before + after) / 2
                tries.append((abs(after - before) / level, [value / level for value in times]))
                before = after
            again += len(tries) - 1
            values += min(tries)[1]
            levels.append(level)
    return values, statistics.median(levels), again
