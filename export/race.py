"""Which way to run is the fastest here: all of them in turn on the same real sentences, one at a time, in one run."""

import random
import statistics
import time
from collections.abc import Mapping, Sequence

import numpy as np

from kdnas.export.engines import Engine
from kdnas.export.session import LENGTH_STEPS
from kdnas.text.padding import pad

SENTENCES, LEAST_ROUNDS, MOST_ROUNDS = 24, 3, 9
SECONDS = 3.0  # an export runs up to eight races


def race(
    runs: Mapping[str, Engine],
    rows: Sequence[Sequence[int]],
    max_seq_len: int,
    sentences: int = SENTENCES,
    seconds: float = SECONDS,
) -> dict[str, float]:
    """Mean latency of each over sentences of all lengths, in ms, at batch 1: the median over the rounds.

    Each round runs all of them in a new random order, each over all sentences twice; the second time counts. So an engine
    meets another length with each call, as it does in use, and its weights are where they are after a few calls.

    Args:
        runs: the engines, by names that begin with the engine's, as forms do.
        rows: token ids; some of them, evenly spread, are taken.
        max_seq_len: of the model.
        sentences: how many.
        seconds: after three rounds no other starts that begins later than this.
    """
    count = min(sentences, len(rows))
    chosen = [rows[index * len(rows) // count] for index in range(count)]
    random.Random(0).shuffle(chosen)
    padded = {step: [pad([row], 0, max_seq_len, step) for row in chosen] for step in set(LENGTH_STEPS.values())}
    texts = {name: padded[LENGTH_STEPS[name.partition("-")[0]]] for name in runs}
    took: dict[str, list[float]] = {name: [] for name in runs}
    order, began, rounds = list(runs), time.monotonic(), 0
    while rounds < LEAST_ROUNDS or (rounds < MOST_ROUNDS and time.monotonic() - began < seconds):
        random.Random(rounds).shuffle(order)
        for name in order:
            _all(runs[name], texts[name])
            took[name].append(_all(runs[name], texts[name]) / len(chosen))
        rounds += 1
    return {name: statistics.median(values) for name, values in took.items()}


def _all(run: Engine, texts: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """Milliseconds of one pass over all texts."""
    start = time.perf_counter()
    for ids, mask in texts:
        run(ids, mask)
    return (time.perf_counter() - start) * 1e3
