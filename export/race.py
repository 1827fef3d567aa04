"""Compares latencies of several forms on this host: interleaved, on the same real sentences, in one run."""

import random
import statistics
import time
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from kdnas.export.engines import RUNTIMES, Forward
from kdnas.models.engine import engine_of
from kdnas.text.padding import pad

SENTENCES, LEAST_ROUNDS, MOST_ROUNDS = 16, 3, 9
SECONDS = 1.5  # an export runs up to eight races

Name = TypeVar("Name", bound=Hashable)


def race(
    runs: Mapping[Name, tuple[str, Forward]],
    rows: Sequence[Sequence[int]],
    max_seq_len: int,
    sentences: int = SENTENCES,
    seconds: float = SECONDS,
) -> dict[Name, float]:
    """Mean latency of each form over sentences of all lengths, in ms, at batch 1: the median over the rounds.

    Each round runs all forms in a new random order. A form runs a quarter of the sentences to warm the caches, then all of them,
    which counts. So the length changes with each call, as in real use. The first call of each shape does not count.

    Args:
        runs: the forms to compare, by any names: the form, whose engine defines the padding, and its graph.
        rows: token ids; an evenly spread sample of them is used.
        max_seq_len: maximum length of the model in tokens.
        sentences: number of sentences.
        seconds: after three rounds, a new round starts only within this time.
    """
    count = min(sentences, len(rows))
    chosen = [rows[index * len(rows) // count] for index in range(count)]
    random.Random(0).shuffle(chosen)
    steps = {name: RUNTIMES[engine_of(form).runtime].length_step for name, (form, _) in runs.items()}
    padded = {step: [pad([row], 0, max_seq_len, step) for row in chosen] for step in set(steps.values())}
    texts = {name: padded[steps[name]] for name in runs}
    took: dict[Name, list[float]] = {name: [] for name in runs}
    order, began, rounds = list(runs), time.monotonic(), 0
    for name, (_, run) in runs.items():
        _all(run, texts[name])  # the first call of a shape is slow
    while rounds < LEAST_ROUNDS or (rounds < MOST_ROUNDS and time.monotonic() - began < seconds):
        random.Random(rounds).shuffle(order)
        for name in order:
            _, run = runs[name]
            _all(run, texts[name][: -(-count // 4)])
            took[name].append(_all(run, texts[name]) / count)
        rounds += 1
    return {name: statistics.median(values) for name, values in took.items()}


def _all(run: Forward, texts: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """Milliseconds of one pass over all texts."""
    start = time.perf_counter()
    for ids, mask in texts:
        run(ids, mask)
    return (time.perf_counter() - start) * 1e3
