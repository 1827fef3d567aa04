"""Latency predictor: a cost law fitted to relative errors, and a learned correction of its residuals."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from kdnas.latency.protocol import Lengths
from kdnas.models.arch import Arch

FOLDS = 5
CORRECTIONS = ("none", "gaussian-process", "boosted-trees")
# Cache boundaries: numbers of layer parameters in millions above which more of the weights no longer fit a cache.
CACHE_MILLIONS = (2.0, 4.0, 8.0, 16.0, 32.0)

# Minimum standard error of a measurement, even if its repeats are closer: processes differ by about as much.
FLOOR_SD = 0.01
# Length scales of the Gaussian process are fitted on at most this many architectures, because the time is cubic.
SCALE_ARCHITECTURES = 150

Predict = Callable[[Sequence[Arch]], np.ndarray]
# Fits architectures (N), their latencies (N, K) in ms and the relative standard error of each (N,).
FitFunction = Callable[[Sequence[Arch], np.ndarray, np.ndarray], Predict]


@dataclass(frozen=True)
class Fit:
    """A fitted predictor and its error on held-out architectures.

    Args:
        predict: architectures (N) to latencies (N, K) in ms at the K measured lengths.
        correction: the selected member of `CORRECTIONS`.
        errors_pct: signed error (N,) of the mean latency of each measured architecture, predicted from the other folds.
        report: values for the manifest.
    """

    predict: Predict
    correction: str
    errors_pct: np.ndarray
    report: dict[str, Any]

    @property
    def relative_sd(self) -> float:
        """Relative standard deviation of a predicted mean latency."""
        return float(np.sqrt(np.mean((self.errors_pct / 100) ** 2)))


def shrink(latencies: np.ndarray, relative_sd: np.ndarray, errors_pct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Combine each measurement with its held-out prediction, weighted by precision, in logarithms.

    The held-out prediction is independent of the measurement. Its variance is that of the held-out errors minus that of the
    measurements.

    Args:
        latencies: measured latencies (N, K) in ms.
        relative_sd: relative standard error (N,) of each.
        errors_pct: signed error (N,) of the held-out prediction of each mean latency.

    Returns:
        (N, K) ms and (N,) relative standard errors.
    """
    noise = np.maximum(relative_sd, FLOOR_SD) ** 2
    logs = np.log1p(errors_pct / 100)
    model = max(float(np.mean(logs**2) - noise.mean()), FLOOR_SD**2)
    fraction = noise / (noise + model)  # weight of the prediction
    return latencies * np.exp(fraction * logs)[:, None], np.sqrt(noise * model / (noise + model))


def cost_features(archs: Sequence[Arch]) -> np.ndarray:
    """Components (N, F) of a forward pass, each with a non-negative cost.

    Per call: a constant, the embedding. Per layer: calls of kernels, element-wise work on hidden states, attention
    heads, projections, the feed-forward layer, the activation. Then weights beyond the capacity of the caches.
    """
    rows = []
    for arch in archs:
        layer = [1.0, arch.heads, arch.hidden, arch.hidden**2, arch.hidden * arch.ffn]
        layer += [arch.ffn * (arch.activation == name) for name in ("gelu", "relu", "silu")]
        millions = arch.layer_parameters / 1e6
        beyond = [max(0.0, millions - edge) for edge in CACHE_MILLIONS]
        rows.append([1.0, arch.hidden, *(arch.layers * value for value in layer), *beyond])
    return np.array(rows)


def shape_features(archs: Sequence[Arch]) -> np.ndarray:
    """Standardised inputs (N, 7) of the correction: logarithms of the four sizes and of the weights, and the activation."""
    rows = [
        [
            *np.log([arch.layers, arch.heads, arch.hidden, arch.ffn, arch.layer_parameters]),
            arch.activation == "relu",
            arch.activation == "silu",
        ]
        for arch in archs
    ]
    centre = np.array(
        [1.8, 1.4, 6.2, 6.9, 16.4, 1 / 3, 1 / 3]
    )  # centre of the published space, so that fits are comparable
    spread = np.array([0.55, 0.6, 0.38, 0.66, 0.9, 0.5, 0.5])
    return (np.array(rows, dtype=np.float64) - centre) / spread


def trust(relative_sd: np.ndarray) -> np.ndarray:
    """Weight (N,) of each row in a least-squares fit of relative errors."""
    return 1 / np.maximum(relative_sd, FLOOR_SD)


def fit_cost_law(archs: Sequence[Arch], latencies: np.ndarray, relative_sd: np.ndarray) -> Predict:
    """Non-negative least squares on the relative error, one fit per measured length.

    Args:
        archs: N architectures.
        latencies: (N, K) ms.
        relative_sd: (N,).
    """
    from scipy.optimize import nnls

    features = cost_features(archs)
    scale = features.max(axis=0)
    scale[scale == 0] = 1.0
    weight = trust(relative_sd)
    columns = [nnls(features / scale * (weight / column)[:, None], weight)[0] / scale for column in latencies.T]
    coefficients = np.stack(columns, axis=1)  # (F, K)
    return lambda wanted: np.maximum(cost_features(wanted) @ coefficients, 1e-6)


def fit_correction(
    kind: str, archs: Sequence[Arch], log_residuals: np.ndarray, relative_sd: np.ndarray
) -> Callable[[Sequence[Arch]], np.ndarray]:
    """Learn the logarithm (N,) of measured latency over cost law; `kind` is one of `CORRECTIONS`."""
    if kind == "none":
        return lambda wanted: np.zeros(len(wanted))
    inputs = shape_features(archs)
    if kind == "gaussian-process":
        model = gaussian_process(inputs, log_residuals, relative_sd)
    else:
        model = _boosted_trees(inputs, log_residuals, relative_sd)
    return lambda wanted: np.asarray(model.predict(shape_features(wanted)))


def gaussian_process(inputs: np.ndarray, targets: np.ndarray, relative_sd: np.ndarray) -> Any:
    """A scikit-learn process fitted to targets (N,) at inputs (N, 7); its noise is `relative_sd` (N,) plus a fitted part."""
    import warnings

    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    kernel = ConstantKernel(0.01, (1e-6, 1.0)) * Matern(np.full(7, 2.0), (0.2, 100.0), nu=2.5)
    kernel += WhiteKernel(1e-3, (1e-6, 0.1))
    noise = np.maximum(relative_sd, FLOOR_SD / 10) ** 2
    some = slice(SCALE_ARCHITECTURES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a length scale at its bound is acceptable
        scales = GaussianProcessRegressor(kernel, alpha=noise[some], random_state=0).fit(inputs[some], targets[some])
    return GaussianProcessRegressor(scales.kernel_, alpha=noise, optimizer=None).fit(inputs, targets)


def _boosted_trees(inputs: np.ndarray, targets: np.ndarray, relative_sd: np.ndarray) -> Any:
    from sklearn.ensemble import GradientBoostingRegressor

    model = GradientBoostingRegressor(
        n_estimators=200, max_depth=3, learning_rate=0.05, subsample=0.7, min_samples_leaf=3, random_state=0
    )
    return model.fit(inputs, targets, sample_weight=trust(relative_sd) ** 2)


def fit_one(
    kind: str, lengths: Lengths, archs: Sequence[Arch], latencies: np.ndarray, relative_sd: np.ndarray
) -> Predict:
    """Cost law times correction; the correction is learned on the mean latency and applied to every length."""
    law = fit_cost_law(archs, latencies, relative_sd)
    residuals = np.log(lengths.mean(latencies) / lengths.mean(law(archs)))
    correction = fit_correction(kind, archs, residuals, relative_sd)
    return lambda wanted: law(wanted) * np.exp(correction(wanted))[:, None]


def fit_predictor(archs: Sequence[Arch], latencies: np.ndarray, relative_sd: np.ndarray, lengths: Lengths) -> Fit:
    """Choose the correction by cross-validation, report its error and the baselines', and fit it to all measurements.

    Every measured architecture is held out once: the fold is its index in `archs` modulo 5.

    Args:
        archs: N measured architectures, in the order of the design.
        latencies: latencies (N, K) in ms at the K measured lengths.
        relative_sd: relative standard error (N,) of each; noisier ones have less weight in every fit.
        lengths: the sentence lengths.
    """
    truth = lengths.mean(latencies)
    seq_len = float(lengths.mean(lengths.strata))
    errors = {}
    for kind in CORRECTIONS:
        held_out = cross_validate(partial(fit_one, kind, lengths), archs, latencies, relative_sd)
        errors[kind] = 100 * (lengths.mean(held_out) / truth - 1)
    best = min(CORRECTIONS, key=lambda kind: float(np.mean(np.abs(errors[kind]))))
    others: dict[str, FitFunction] = {
        name: partial(fit_linear, features) for name, features in baseline_features(seq_len).items()
    }
    baselines = {}
    for name, fit in {**others, "hat": fit_hat}.items():
        held_out = cross_validate(fit, archs, truth[:, None], relative_sd)
        baselines[name] = error_summary(100 * (held_out[:, 0] / truth - 1))
    report = {
        "method": f"{FOLDS}-fold cross-validation over all measured architectures",
        "correction": best,
        **error_summary(errors[best]),
        "corrections": {kind: error_summary(value) for kind, value in errors.items()},
        "baselines": baselines,
    }
    return Fit(fit_one(best, lengths, archs, latencies, relative_sd), best, errors[best], report)


def cross_validate(
    fit: FitFunction, archs: Sequence[Arch], latencies: np.ndarray, relative_sd: np.ndarray
) -> np.ndarray:
    """Predictions (N, K) of every architecture by a fit to the other folds."""
    result = np.empty_like(latencies)
    folds = np.arange(len(archs)) % FOLDS
    for fold in range(FOLDS):
        inside, outside = folds != fold, folds == fold
        known = [arch for arch, use in zip(archs, inside, strict=True) if use]
        predict = fit(known, latencies[inside], relative_sd[inside])
        result[outside] = predict([arch for arch, use in zip(archs, outside, strict=True) if use])
    return result


def error_summary(errors_pct: np.ndarray) -> dict[str, float]:
    """Median, 90th percentile and maximum of the absolute error in percent."""
    absolute = np.abs(errors_pct)
    return {
        "median_abs_pct": round(float(np.median(absolute)), 2),
        "p90_abs_pct": round(float(np.quantile(absolute, 0.9)), 2),
        "max_abs_pct": round(float(absolute.max()), 2),
    }


def baseline_features(seq_len: float) -> dict[str, Callable[[Sequence[Arch]], np.ndarray]]:
    """Features of published latency predictors: FLOPs, parameters, and a sum of layer costs looked up by field value."""
    return {
        "flops": lambda archs: np.array([[1.0, arch.flops(round(seq_len))] for arch in archs]),
        "parameters": lambda archs: np.array([[1.0, arch.layer_parameters] for arch in archs]),
        "layer-sum": _layer_sum_features,
    }


def _layer_sum_features(archs: Sequence[Arch]) -> np.ndarray:
    from kdnas.models.arch import SearchSpace

    space = SearchSpace()
    rows = []
    for arch in archs:
        row = [1.0]
        for name in ("heads", "hidden", "ffn", "activation"):
            row += [float(arch.layers * (getattr(arch, name) == value)) for value in getattr(space, name)]
        rows.append(row)
    return np.array(rows)


def fit_linear(
    features: Callable[[Sequence[Arch]], np.ndarray],
    archs: Sequence[Arch],
    latencies: np.ndarray,
    relative_sd: np.ndarray,
) -> Predict:
    """Least squares on the relative error of latencies (N, 1); the minimum-norm solution for unseen values."""
    matrix = features(archs)
    scale = np.abs(matrix).max(axis=0)
    scale[scale == 0] = 1.0
    weight = trust(relative_sd)
    weighted = matrix / scale * (weight[:, None] / latencies)
    coefficients = np.linalg.lstsq(weighted, weight, rcond=None)[0] / scale
    return lambda wanted: (features(wanted) @ coefficients)[:, None]


def fit_hat(archs: Sequence[Arch], latencies: np.ndarray, relative_sd: np.ndarray) -> Predict:
    """The latency predictor of HAT (arXiv 2005.14187): a perceptron of three layers, 400 wide, on the sizes.

    Each size is divided by its largest, the latencies (N, 1) by their mean; all rows have the same weight.
    """
    import warnings

    from sklearn.neural_network import MLPRegressor
    from threadpoolctl import threadpool_limits

    def inputs(wanted: Sequence[Arch]) -> np.ndarray:
        rows = [
            [arch.layers / 12, arch.heads / 12, arch.hidden / 768, arch.ffn / 3072]
            + [float(arch.activation == name) for name in ("gelu", "relu", "silu")]
            for arch in wanted
        ]
        return np.array(rows)

    scale = float(latencies.mean())
    model = MLPRegressor(hidden_layer_sizes=(400, 400, 400), max_iter=150, batch_size=32, random_state=0)
    with warnings.catch_warnings(), threadpool_limits(1):  # products are too small for several threads
        warnings.simplefilter("ignore")  # stopped by the number of epochs, as in HAT
        model.fit(inputs(archs), latencies[:, 0] / scale)
    return lambda wanted: np.maximum(model.predict(inputs(wanted)) * scale, 1e-6)[:, None]
