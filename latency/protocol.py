"""The measurement protocol: options, sentence lengths and their strata, and the order of architectures."""

from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

from kdnas.errors import UsageError
from kdnas.export.engines import RUNTIMES
from kdnas.models.arch import Arch, SearchSpace
from kdnas.models.engine import PYTORCH, Engine, EngineName, engine_of
from kdnas.store.host import default_threads, physical_cores

SENTENCES = 10_000
STRATA, MOST_CUTS = 7, 20
# Untimed calls of a model after another model ran. With OpenVINO int8 the first call of a small student takes 2.5 times as
# long, the second 1.6, the fifth 1.1 (results/latency/README.md): one untimed call is far too few.
WARM_CALLS = 8
RUNS = 3  # repetitions in the published protocol
MINIMUM_ARCHITECTURES = 40
HELD_OUT, HELD_OUT_SEED = 59, 230309639


@dataclass(frozen=True)
class LatencyOptions:
    """Options of the latency table.

    Args:
        protocol: `fast` measures a balanced selection of architectures at a few lengths, within `minutes`, and predicts the
            others; `paper` measures every architecture on every sentence, three times, which takes hundreds of hours: it
            prints an estimate before it starts.
        engine: engine to time: eager PyTorch, an exported graph in the session that users run, or PyTorch on a GPU.
        minutes: time budget of the fast protocol for tokenising, A/A check, measuring and fitting together. A later table with
            more minutes reuses the measurements of this one.
        sentences: number of corpus sentences over which latency is averaged.
        threads: threads per call; null takes min(4, physical cores).
        pin: pin the measuring processes to a fixed set of physical cores, one per thread (Linux).
        seed: seed of the sentences, the selection, the order and the random weights.
        tolerance: discard a window if the reference moved by more than this fraction of its median during the window, in two
            attempts; the references around each sweep cancel smaller moves.
        peak_seconds: time to measure the host's peak matrix products and memory reads; 0 skips it.
        max_architectures: maximum number of architectures to measure; the others are predicted. Null sets no limit.
    """

    engine: EngineName = PYTORCH
    protocol: Literal["fast", "paper"] = "fast"
    minutes: float = 10
    sentences: int = SENTENCES
    threads: int | None = None
    pin: bool = False
    seed: int = 0
    tolerance: float = 0.5
    peak_seconds: float = 6
    max_architectures: int | None = None

    def __post_init__(self) -> None:
        # 10 and 10.0 are the same budget and must give the same artifact.
        object.__setattr__(self, "minutes", float(self.minutes))
        if not 0.2 <= self.minutes <= 60 * 24 * 7:
            raise UsageError(
                f"minutes is {self.minutes:g}; allowed are 0.2 to {60 * 24 * 7} (a week); 10 is a good choice"
            )
        if not 50 <= self.sentences <= SENTENCES:
            raise UsageError(f"sentences is {self.sentences}; allowed are 50 to {SENTENCES}")
        cores = physical_cores()
        if self.threads is not None and not 1 <= self.threads <= cores:
            raise UsageError(f"threads is {self.threads}; this host has {cores} cores: allowed are 1 to {cores}")
        if self.seed < 0:
            raise UsageError(f"seed is {self.seed}; it must be a whole number of at least 0")
        if not 0 < self.tolerance < 1:
            raise UsageError(f"tolerance is {self.tolerance}; it must be between 0 and 1; 0.5 discards moves over 50 %")
        if not 0 <= self.peak_seconds <= 600:
            raise UsageError(f"peak_seconds is {self.peak_seconds}; allowed are 0 (skip it) to 600")
        if self.max_architectures is not None and self.max_architectures < 10:
            raise UsageError(f"max_architectures is {self.max_architectures}; at least 10 are needed to fit the others")

    @property
    def resolved_threads(self) -> int:
        return self.threads or default_threads()

    @property
    def resolved_engine(self) -> Engine:
        """The engine to time.

        Raises:
            UsageError: the engine does not exist.
        """
        return engine_of(self.engine)

    @property
    def minimum(self) -> int:
        """Minimum number of kept architectures for a table."""
        return min(MINIMUM_ARCHITECTURES, self.max_architectures or MINIMUM_ARCHITECTURES)


@dataclass(frozen=True)
class Lengths:
    """The sentence lengths that a latency is averaged over, and the K lengths at which it is measured.

    Latency is interpolated linearly between the measured lengths and extrapolated beyond them, so the mean over all
    sentences is a fixed weighted sum of the K measured latencies.

    Args:
        values: distinct lengths of the sampled sentences in tokens, ascending (U,).
        counts: number of sentences of each length (U,).
        strata: measured lengths in tokens, ascending (K,).
        matrix: (U, K); row u times the K measured latencies is the latency at `values[u]`.
    """

    values: np.ndarray
    counts: np.ndarray
    strata: np.ndarray
    matrix: np.ndarray

    @property
    def weights(self) -> np.ndarray:
        """Weights (K,) of the measured latencies in the mean over the sentences; they sum to 1."""
        return self.counts @ self.matrix / self.counts.sum()

    @property
    def fractions(self) -> np.ndarray:
        """Fraction (K,) of the sentences whose length, as run (padded), is exactly the measured one."""
        return np.array([self.counts[self.values == index].sum() for index in self.strata]) / self.counts.sum()

    def mean(self, latencies: np.ndarray) -> np.ndarray:
        """Mean over the sentences of latencies (..., K) at the measured lengths, shape (...)."""
        return np.asarray(latencies @ self.weights)

    def quantile(self, latencies: np.ndarray, fraction: float) -> float:
        """Quantile over the sentences of one architecture's latencies (K,)."""
        return weighted_quantile(self.matrix @ latencies, self.counts, fraction)


def sample_lengths(lengths: np.ndarray, seed: int, sentences: int) -> np.ndarray:
    """Lengths of `sentences` sentences drawn from `lengths` (N,); with replacement only if N is smaller."""
    rng = np.random.default_rng([seed, 1])
    return np.sort(rng.choice(np.asarray(lengths), sentences, replace=len(lengths) < sentences))


def length_step(engine: str) -> int:
    """Sessions of this engine pad sentences to multiples of this many tokens, and the timing does the same."""
    runtime = RUNTIMES.get(engine_of(engine).runtime)
    return runtime.length_step if runtime else 1


def calls_per_length(engine: str) -> int:
    """Calls of a model per length in a sweep: two for engines that pad, where consecutive sentences often share a shape.

    A change of shape costs such an engine time (OpenVINO: 1.2 to 2.9 times the call, results/latency/README.md).
    """
    return 2 if length_step(engine) > 1 else 1


def padded(sample: np.ndarray, step: int) -> np.ndarray:
    """Lengths (N,) as run: rounded up to multiples of `step`."""
    return -(-np.asarray(sample) // step) * step


def stratify(sample: np.ndarray, strata: int = STRATA, step: int = 1) -> Lengths:
    """Cut sampled lengths (N,) into equally probable strata, each represented by its rounded mean length.

    Rounded or equal representatives cause no bias: the weights come from interpolating each sentence, hence weights @ strata
    is the exact mean length for any strata.

    Args:
        sample: lengths as run.
        strata: number of strata.
        step: means are rounded to multiples of it. Padded lengths are few and uneven, so the sample is cut into more strata
            until their means are `strata` different lengths.
    """
    ordered = np.sort(np.asarray(sample))
    values, counts = np.unique(ordered, return_counts=True)
    wanted = min(strata, len(values))
    for count in range(min(strata, len(ordered)), MOST_CUTS * strata):
        parts = np.array_split(ordered, count)
        indices = np.unique([max(1, round(float(part.mean()) / step)) * step for part in parts]).astype(np.int64)
        if step == 1 or len(indices) >= wanted:
            break
    return Lengths(values, counts, indices, interpolation(values, indices))


def interpolation(values: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Matrix (U, K) of linear interpolation from K ascending points to U values, with extrapolation beyond the ends."""
    if len(indices) == 1:
        return np.ones((len(values), 1))
    left = np.clip(np.searchsorted(indices, values, side="right") - 1, 0, len(indices) - 2)
    fraction = (values - indices[left]) / (indices[left + 1] - indices[left])
    matrix = np.zeros((len(values), len(indices)))
    rows = np.arange(len(values))
    matrix[rows, left] = 1 - fraction
    matrix[rows, left + 1] = fraction
    return matrix


def weighted_quantile(values: np.ndarray, weights: np.ndarray, fraction: float) -> float:
    """The smallest value such that at least `fraction` of the weight lies at or below it.

    Args:
        values: (N,) in any order.
        weights: (N,), at least 0, not all zero.
        fraction: 0 to 1.
    """
    order = np.argsort(values, kind="stable")
    cumulative = np.cumsum(np.asarray(weights, dtype=np.float64)[order])
    # Slightly below the target: rounding must not turn 0.3 of 10 equal weights into the fourth value instead of the third.
    index = int(np.searchsorted(cumulative, fraction * cumulative[-1] * (1 - 1e-12)))
    return float(np.asarray(values)[order][min(index, len(order) - 1)])


def held_out() -> list[Arch]:
    """The 59 architectures that no predictor is ever fitted to, in order of id, the same for all seeds.

    Only the paper protocol measures them: it measures all architectures and predicts none.

    The largest of n errors of a random sample exceeds the 95th percentile of all with probability 1 - 0.95 ** n, which is
    above 0.95 for n >= 59: a bound without assumptions on the distribution of the errors.
    """
    archs = list(SearchSpace())
    chosen = np.random.default_rng(HELD_OUT_SEED).choice(len(archs), HELD_OUT, replace=False)
    return [archs[index] for index in sorted(chosen)]


def design(seed: int) -> list[Arch]:
    """All other architectures in an order whose every prefix is balanced, so that a longer budget only adds architectures.

    Greedy: the next architecture is the one whose cells have been used least, over single fields, pairs of fields and
    the cell of all fields but depth; ties are broken at random. Counts are scaled by the number of cells of their margin.
    """
    space = SearchSpace()
    archs = list(space)
    sizes = [len(values) for values in (space.layers, space.heads, space.hidden, space.ffn, space.activation)]
    levels = np.stack(np.unravel_index(np.arange(len(archs)), sizes), axis=1)  # ids are in this order
    margins = [(field,) for field in range(5)] + list(combinations(range(5), 2)) + [(1, 2, 3, 4)]
    cells, scales, offset = [], [], 0
    for margin in margins:
        shape = [sizes[field] for field in margin]
        cells.append(offset + np.ravel_multi_index(tuple(levels[:, field] for field in margin), shape))
        scales.append(np.full(int(np.prod(shape)), float(np.prod(shape))))
        offset += int(np.prod(shape))
    members, scale = np.stack(cells, axis=1), np.concatenate(scales)  # (2400, M), (all cells,)
    rng = np.random.default_rng([seed, 2])
    used = np.zeros(offset)
    apart = set(held_out())
    left = np.array([index for index in rng.permutation(len(archs)) if archs[index] not in apart])
    order = []
    while len(left):
        best = int(np.argmin(used[members[left]].sum(axis=1)))  # `left` is in random order: the first is a random tie
        order.append(archs[left[best]])
        chosen = members[left[best]]
        used[chosen] += scale[chosen]
        left = np.delete(left, best)
    return order
