"""What is timed: the very sessions that users get, for any architecture, with random weights.

Each runtime has a file of its name here, which defines what `Timer` lists; `kdnas.models.engine.ENGINES` says which there are.
Compiled engines run graphs that `kdnas.latency.rewriting` makes of the exporter's own; the session is `kdnas.export.session`'s.
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

TIMED_VOCABULARY = 65_536  # rows; 75 MB at the least width
# All latencies are taken relative to this shape, timed beside them. It is of the middle of the space: what a neighbour of a
# virtual machine takes, of the last-level cache say, then slows it about as much as what it is compared with. With a reference
# of 12 layers of 768, windows of one model differed twice as much.
REFERENCE = Arch(6, 12, 384, 1536, "gelu")
OUTPUTS = ("last_hidden_state",)
CHAIN = 16  # matrix products in one call of a chain, so that what a call costs by itself does not show

Call = Callable[..., Any]
Chain = Callable[[int], Callable[[], object]]  # for a number of tokens, a call of CHAIN matrix products


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


class Timer(Protocol):
    """What the file of a runtime defines."""

    # `(engine, threads, inner, outer) -> Chain`: a chain of products, from `inner` to `outer` and back, of which the host's
    # peaks are measured; none where that is not done.
    product_chain: Callable[[Engine, int, int, int], Chain] | None

    def require(self, engine: Engine) -> None:
        """Raise UsageError for an engine that this host lacks or would only emulate."""

    def make_models(self, engine: Engine, config: Any, seed: int, threads: int, graphs: Path) -> Models:
        """What `kdnas.latency.engines.make_models` returns, for an engine of this runtime."""


def timer_of(engine: Engine) -> Timer:
    """The file of an engine's runtime; it is imported when it is first asked for."""
    return cast(Timer, import_module(f"{__name__}.{engine.runtime}"))


def require_engine(name: str) -> Engine:
    """The engine of this name.

    Raises:
        UsageError: an unknown engine, or one that this host lacks or would only emulate.
    """
    engine = engine_of(name)
    timer_of(engine).require(engine)
    if engine.form is not None:
        require_extras(f"engine '{engine}'", ("export",))
    return engine


def make_models(engine: Engine, config: Any, seed: int, threads: int, graphs: Path) -> Models:
    """Models of one engine.

    A call reads as many rows of the word embeddings as there are tokens, from a table that is larger than any cache. Rows
    beyond `TIMED_VOCABULARY` only cost memory and the time to load a model, so they are left out
    (`tests/bench/embedding_rows.py` compares).

    Args:
        engine: what runs them.
        config: configuration of the teacher.
        seed: of the random weights.
        threads: that one call may use.
        graphs: folder with the templates of `kdnas.latency.template`, one an activation; engines that run no export need none.
    """
    config = copy(config)
    config.vocab_size = min(config.vocab_size, TIMED_VOCABULARY)
    return timer_of(engine).make_models(engine, config, seed, threads, graphs)


def random_sentence(length: int, config: Any, seed: int) -> dict[str, np.ndarray]:
    """One sentence of random token ids, no padding: input_ids and attention_mask, both (1, length) int64."""
    rng = np.random.default_rng([seed, length])
    ids = rng.integers(0, config.vocab_size, length)
    pad_id = config.pad_token_id or 0
    ids[ids == pad_id] = (pad_id + 1) % config.vocab_size  # RoBERTa would not count padding as a position
    return {"input_ids": ids[None], "attention_mask": np.ones((1, length), dtype=np.int64)}
