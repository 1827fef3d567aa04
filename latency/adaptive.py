"""What to measure next, once the design has said the general: where the prediction is unsure and where it matters."""

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

DESIGN_FIRST = 120  # architectures that the design chooses alone
DESIGN_SHARE = 0.5  # of each later round: it keeps what is measured balanced
NEAR_CACHE = 0.15  # of a cache boundary, as a fraction of its weights
DOUBT = 2.0  # standard deviations from what the others say, from which an architecture is measured again
MOST_WINDOWS = 3
NEAR_FRONT = 0.05  # of the Pareto front, as a fraction of the latency


def reorder(
    order: Sequence[str], measurements: Measurements, lengths: Lengths, size: int, rng: np.random.Generator
) -> list[str]:
    """The design's order of what is left, with `size` architectures that promise most put first, half by the design.

    Chance decides, with weights: the variance of a Gaussian process fitted to what is measured, twice as much near a cache
    boundary, and twice near the Pareto front of low latency and many layer parameters. Taking the largest alone would take
    neighbours, which say the same.

    Args:
        order: the design.
        measurements: what is measured so far.
        lengths: the sentences.
        size: architectures of the next round.
        rng: decides.
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
    """Measured architectures that the others contradict, the worst first, but for those measured `MOST_WINDOWS` times.

    A disturbance that slows one model and spares the reference beside it shows nowhere else. Another window, whose median
    with the first is taken, says which of the two it was, a disturbance or a truth that the model does not know.
    """
    if len(measurements.archs) < DESIGN_FIRST:
        return []
    fit = partial(fit_one, "gaussian-process", lengths)
    held_out = cross_validate(fit, measurements.archs, measurements.latencies, measurements.relative_sd)
    errors = np.abs(np.log(lengths.mean(held_out) / lengths.mean(measurements.latencies)))
    limit = DOUBT * 1.4826 * float(np.median(errors))  # the median of absolute errors as a standard deviation
    windows = Counter(sample["arch"] for sample in samples if sample["kept"])
    names = [str(measurements.archs[index]) for index in np.argsort(-errors) if errors[index] > limit]
    return [name for name in names if windows[name] < MOST_WINDOWS]


def promise(archs: Sequence[Arch], measurements: Measurements, lengths: Lengths) -> np.ndarray:
    """Weight of each architecture (N,), above 0."""
    law = fit_cost_law(measurements.archs, measurements.latencies, measurements.relative_sd)
    residuals = np.log(lengths.mean(measurements.latencies) / lengths.mean(law(measurements.archs)))
    process = gaussian_process(shape_features(measurements.archs), residuals, measurements.relative_sd)
    correction, deviation = process.predict(shape_features(archs), return_std=True)
    latency_ms = lengths.mean(law(archs)) * np.exp(correction)
    return np.asarray(deviation**2 * (1 + near_cache(archs)) * (1 + near_front(archs, latency_ms)) + 1e-12)


def near_cache(archs: Sequence[Arch]) -> np.ndarray:
    """Whether the layers' weights are about as many as a cache holds, (N,)."""
    millions = np.array([arch.layer_parameters / 1e6 for arch in archs])
    return np.asarray(np.abs(millions[:, None] / np.array(CACHE_MILLIONS) - 1).min(axis=1) <= NEAR_CACHE)


def near_front(archs: Sequence[Arch], latency_ms: np.ndarray) -> np.ndarray:
    """Whether no architecture with as many layer parameters is faster by more than `NEAR_FRONT`, (N,)."""
    size = np.array([arch.layer_parameters for arch in archs])
    front = sorted(pareto_front(list(zip((-size).tolist(), latency_ms.tolist(), strict=True))), key=lambda at: size[at])
    sizes, fastest = size[front], latency_ms[front]  # both ascend: on the front, more weights cost more time
    index = np.searchsorted(sizes, size)  # the first of the front that has at least as many
    return np.asarray(latency_ms <= (1 + NEAR_FRONT) * fastest[np.minimum(index, len(front) - 1)])
