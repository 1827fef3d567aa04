"""Choice of the next architectures to measure after the design: those with uncertain or important predictions."""

from collections import Counter
from collections.abc import Sequence
from functools import partial

import numpy as np

from kdnas.latency.predictor import (
    CACHE_MILLIONS,
    cross_validate,
    fit_cost_law,
    fit_one,
    gaussian_process,
    shape_features,
)
from kdnas.latency.protocol import Lengths
from kdnas.latency.samples import Measurements, Sample
from kdnas.models.arch import Arch
from kdnas.search.pareto import pareto_front

DESIGN_FIRST = 120  # number of architectures that only the design chooses
DESIGN_SHARE = 0.5  # fraction of each later round that the design chooses, to keep the measured set balanced
NEAR_CACHE = 0.15  # distance from a cache boundary, as a fraction of its weights
DOUBT = 2.0  # deviation from the held-out prediction, in standard deviations, above which a measurement is repeated
MOST_WINDOWS = 3
NEAR_FRONT = 0.05  # distance from the Pareto front, as a fraction of the latency


def reorder(
    order: Sequence[str], measurements: Measurements, lengths: Lengths, size: int, rng: np.random.Generator
) -> list[str]:
    """The remaining design order, with `size` architectures moved to the front, half of them the most promising ones.

    These are drawn at random, weighted by the variance of a Gaussian process fitted to the measurements, doubled near a cache
    boundary, and doubled near the Pareto front of low latency and many layer parameters. Taking the largest weights would
    select neighbours, which give the same information.

    Args:
        order: the design.
        measurements: the measurements so far.
        lengths: the sentence lengths.
        size: number of architectures of the next round.
        rng: draws the architectures.
    """
    known = {str(arch) for arch in measurements.archs}
    waiting = [name for name in order if name not in known]
    if len(known) < DESIGN_FIRST or len(waiting) <= size:
        return list(order)
    by_design = waiting[: round(size * DESIGN_SHARE)]
    others = waiting[len(by_design) :]
    weights = promise([Arch.parse(name) for name in others], measurements, lengths)
    chosen = rng.choice(len(others), size - len(by_design), replace=False, p=weights / weights.sum())
    first = [*by_design, *(others[index] for index in chosen)]
    taken = set(first)
    return [*first, *(name for name in order if name not in taken)]


def doubtful(samples: Sequence[Sample], measurements: Measurements, lengths: Lengths) -> list[str]:
    """Measured architectures far from their held-out prediction, the worst first, without those measured `MOST_WINDOWS` times.

    A disturbance that slows a model but not its reference is visible only here. A second window, combined with the first by
    the median, distinguishes a disturbance from an effect that the predictor does not model.
    """
    if len(measurements.archs) < DESIGN_FIRST:
        return []
    fit = partial(fit_one, "gaussian-process", lengths)
    held_out = cross_validate(fit, measurements.archs, measurements.latencies, measurements.relative_sd)
    errors = np.abs(np.log(lengths.mean(held_out) / lengths.mean(measurements.latencies)))
    limit = DOUBT * 1.4826 * float(np.median(errors))  # median absolute error, converted to a standard deviation
    windows = Counter(sample["arch"] for sample in samples if sample["kept"])
    names = [str(measurements.archs[index]) for index in np.argsort(-errors) if errors[index] > limit]
    return [name for name in names if windows[name] < MOST_WINDOWS]


def promise(archs: Sequence[Arch], measurements: Measurements, lengths: Lengths) -> np.ndarray:
    """Weight (N,) of each architecture in the draw of `reorder`, above 0."""
    law = fit_cost_law(measurements.archs, measurements.latencies, measurements.relative_sd)
    residuals = np.log(lengths.mean(measurements.latencies) / lengths.mean(law(measurements.archs)))
    process = gaussian_process(shape_features(measurements.archs), residuals, measurements.relative_sd)
    correction, deviation = process.predict(shape_features(archs), return_std=True)
    latency_ms = lengths.mean(law(archs)) * np.exp(correction)
    return np.asarray(deviation**2 * (1 + near_cache(archs)) * (1 + near_front(archs, latency_ms)) + 1e-12)


def near_cache(archs: Sequence[Arch]) -> np.ndarray:
    """Whether the layers' weights are close to a cache boundary, (N,)."""
    millions = np.array([arch.layer_parameters / 1e6 for arch in archs])
    return np.asarray(np.abs(millions[:, None] / np.array(CACHE_MILLIONS) - 1).min(axis=1) <= NEAR_CACHE)


def near_front(archs: Sequence[Arch], latency_ms: np.ndarray) -> np.ndarray:
    """Whether no architecture with as many layer parameters is faster by more than `NEAR_FRONT`, (N,)."""
    size = np.array([arch.layer_parameters for arch in archs])
    front = sorted(pareto_front(list(zip((-size).tolist(), latency_ms.tolist(), strict=True))), key=lambda at: size[at])
    sizes, fastest = size[front], latency_ms[front]  # both ascend: on the front, more weights cost more time
    index = np.searchsorted(sizes, size)  # the first one of the front with at least as many parameters
    return np.asarray(latency_ms <= (1 + NEAR_FRONT) * fastest[np.minimum(index, len(front) - 1)])
