"""The engines to time: the same sessions that users run, for any architecture, with random weights.

Each runtime has a module of its name here, which implements `Timer`; `kdnas.models.engine.ENGINES` lists the runtimes. Compiled
engines run graphs that `kdnas.latency.rewriting` makes from the exporter's, with the settings of `kdnas.export.session`.
"""

from collections.abc import Callable
from copy import copy
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np

from kdnas.extras import require_extras
from kdnas.models.arch import Arch
from kdnas.models.engine import Engine, engine_of

TIMED_VOCABULARY = 65_536  # rows; 75 MB at the smallest width
# All latencies are relative to this shape, which is timed around them. It lies in the middle of the space: other virtual
# machines on the host, which use the last-level cache for example, slow it about as much as the compared models. With a
# reference of 12 layers of 768, windows of one model differed twice as much.
REFERENCE = Arch(6, 12, 384, 1536, "gelu")
OUTPUTS = ("last_hidden_state",)
CHAIN = 16  # matrix products per call of a chain, so that the overhead of a call is negligible

Call = Callable[..., Any]
Chain = Callable[[int], Callable[[], object]]  # for a number of tokens, a call of CHAIN matrix products


class Models(Protocol):
    """Makes runnable models of one engine; a model is called with `input_ids` and `attention_mask`, both (1, T)."""

    def student(self, arch: Arch) -> Call:
        """An architecture in the teacher's family; the student made before must not be used afterwards."""

    def teacher(self) -> Call:
        """The teacher's shape; the student made before must not be used afterwards."""

    def reference(self) -> Call:
        """The reference shape; it stays usable."""

    def sentence(self, length: int, seed: int) -> dict[str, Any]:
        """Random token ids, no padding."""


class Timer(Protocol):
    """The interface of a runtime's module."""

    # `(engine, threads, inner, outer) -> Chain`: a chain of products, from `inner` to `outer` and back, to measure the host's
    # peaks; None for runtimes without peaks.
    product_chain: Callable[[Engine, int, int, int], Chain] | None

    def require(self, engine: Engine) -> None:
        """Raise UsageError for an engine that this host lacks or could only emulate."""

    def make_models(self, engine: Engine, config: Any, seed: int, threads: int, graphs: Path) -> Models:
        """As `kdnas.latency.engines.make_models`, for an engine of this runtime."""


def timer_of(engine: Engine) -> Timer:
    """The module of an engine's runtime, imported on first use."""
    return cast(Timer, import_module(f"{__name__}.{engine.runtime}"))


def require_engine(name: str) -> Engine:
    """The engine of this name.

    Raises:
        UsageError: the engine is unknown, or this host lacks it or could only emulate it.
    """
    engine = engine_of(name)
    timer_of(engine).require(engine)
    if engine.form is not None:
        require_extras(f"engine '{engine}'", ("export",))
    return engine


def make_models(engine: Engine, config: Any, seed: int, threads: int, graphs: Path) -> Models:
    """Models of one engine.

    A call reads as many rows of the word embeddings as there are tokens, from a table that is larger than any cache. Rows
    beyond `TIMED_VOCABULARY` only cost memory and loading time, so they are left out (comparison:
    `tests/bench/embedding_rows.py`).

    Args:
        engine: engine of the models.
        config: configuration of the teacher.
        seed: seed of the random weights.
        threads: threads per call.
        graphs: folder with the templates of `kdnas.latency.template`, one per activation; None for engines without exports.
    """
    config = copy(config)
    config.vocab_size = min(config.vocab_size, TIMED_VOCABULARY)
    return timer_of(engine).make_models(engine, config, seed, threads, graphs)


def random_sentence(length: int, config: Any, seed: int) -> dict[str, np.ndarray]:
    """One sentence of random token ids, no padding: input_ids and attention_mask, both (1, length) int64."""
    rng = np.random.default_rng([seed, length])
    ids = rng.integers(0, config.vocab_size, length)
    pad_id = config.pad_token_id or 0
    ids[ids == pad_id] = (pad_id + 1) % config.vocab_size  # RoBERTa does not count padding as a position
    return {"input_ids": ids[None], "attention_mask": np.ones((1, length), dtype=np.int64)}
