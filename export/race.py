"""Which form is the fastest here: all of them in turn on the same text, in one run."""

import random
import statistics
import time
from collections.abc import Mapping

import numpy as np

from export.engines import Engine

TOKENS, ROUNDS, CALLS = 32, 21, 3


def race(runs: Mapping[str, Engine], row: list[int]) -> dict[str, float]:
    """Median latency of each, in ms, at batch 1 and 32 tokens.

    Args:
        runs: the engines by name; each round runs all of them in a new random order, after one call that warms up.
        row: token ids; the first 32 are taken.
    """
    ids = np.asarray([row[:TOKENS]], dtype=np.int64)
    mask = np.ones_like(ids)
    took: dict[str, list[float]] = {name: [] for name in runs}
    order, shuffle = list(runs), random.Random(0).shuffle
    for _ in range(ROUNDS):
        shuffle(order)
        for name in order:
            runs[name](ids, mask)
            start = time.perf_counter()
            for _ in range(CALLS):
                runs[name](ids, mask)
            took[name].append((time.perf_counter() - start) * 1e3 / CALLS)
    return {name: statistics.median(values) for name, values in took.items()}
