"""The predictor on a known formula, and compared with published baselines."""

from collections.abc import Sequence

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from kdnas.latency.predictor import (
    CORRECTIONS,
    Fit,
    cross_validate,
    error_summary,
    fit_cost_law,
    fit_hat,
    fit_predictor,
    shrink,
)
from kdnas.latency.protocol import Lengths, design, stratify
from kdnas.models.arch import Arch, SearchSpace

MEASURED = 120
ACTIVATION_COST = {"gelu": 3.0, "relu": 1.0, "silu": 2.0}


def law(arch: Arch, length: float) -> float:
    """Milliseconds of a simulated host: kernel calls, heads, matrix products, activations, and a cache that overflows."""
    layer = 0.25 + 0.002 * arch.heads + 4e-8 * length * arch.hidden**2 + 1e-8 * length * arch.hidden * arch.ffn
    layer += 2e-6 * length * arch.ffn * ACTIVATION_COST[arch.activation]
    return (0.2 + arch.layers * layer) * (1 + 0.1 * max(0.0, np.log(arch.layer_parameters / 8e6)))


def latencies(archs: Sequence[Arch], lengths: Lengths) -> np.ndarray:
    return np.array([[law(arch, length) for length in lengths.strata] for arch in archs])


@pytest.fixture(scope="module")
def lengths() -> Lengths:
    return stratify(np.clip(np.random.default_rng(0).lognormal(3, 0.5, 10_000).astype(int), 4, 128))


@pytest.fixture(scope="module")
def fit(lengths: Lengths) -> Fit:
    archs = design(0)[:MEASURED]
    noise = np.exp(np.random.default_rng(1).normal(0, 0.01, (MEASURED, 1)))
    return fit_predictor(archs, latencies(archs, lengths) * noise, np.full(MEASURED, 0.01), lengths)


def test_recovers_the_formula(fit: Fit, lengths: Lengths) -> None:
    space = list(SearchSpace())
    truth = lengths.mean(latencies(space, lengths))
    errors = error_summary(100 * (lengths.mean(fit.predict(space)) / truth - 1))
    assert errors["median_abs_pct"] < 1
    assert errors["p90_abs_pct"] < 2
    assert errors["max_abs_pct"] < 6


def test_predicts_quantiles(fit: Fit, lengths: Lengths) -> None:
    for arch in design(0)[-20:]:
        predicted, truth = fit.predict([arch])[0], latencies([arch], lengths)[0]
        for fraction in (0.5, 0.9):
            assert lengths.quantile(predicted, fraction) == pytest.approx(lengths.quantile(truth, fraction), rel=0.06)


def test_beats_the_baselines_on_held_out(fit: Fit) -> None:
    report = fit.report
    assert set(report["baselines"]) == {"flops", "parameters", "layer-sum", "hat"}
    for errors in report["baselines"].values():
        assert report["median_abs_pct"] < errors["median_abs_pct"] / 3
        assert report["p90_abs_pct"] < errors["p90_abs_pct"] / 3
    assert set(report["corrections"]) == set(CORRECTIONS)
    assert report["correction"] in CORRECTIONS
    assert report["median_abs_pct"] <= report["p90_abs_pct"] <= report["max_abs_pct"]


def test_reported_error_matches_the_true_error(fit: Fit, lengths: Lengths) -> None:
    """The held-out error is close to the error on unmeasured architectures, both including noise."""
    rest = design(0)[MEASURED:]
    noise = np.exp(np.random.default_rng(2).normal(0, 0.01, len(rest)))
    errors = lengths.mean(fit.predict(rest)) / (lengths.mean(latencies(rest, lengths)) * noise) - 1
    assert fit.relative_sd == pytest.approx(float(np.sqrt(np.mean(errors**2))), rel=0.5)


def test_noisy_measurements_have_less_weight(lengths: Lengths) -> None:
    archs = design(0)[:60]
    times, noise = latencies(archs, lengths), np.full(60, 0.01)
    times[::4] *= 2
    trusting = fit_cost_law(archs, times, noise)(archs)
    noise[::4] = 0.5
    doubting = fit_cost_law(archs, times, noise)(archs)
    good = np.arange(60) % 4 != 0
    truth = latencies(archs, lengths)
    assert np.abs(doubting / truth - 1)[good].mean() < 0.5 * np.abs(trusting / truth - 1)[good].mean()


def test_cross_validation_never_fits_the_held_out() -> None:
    archs = design(0)[:12]
    times = np.arange(12.0)[:, None]

    def fit(known: Sequence[Arch], latencies: np.ndarray, relative_sd: np.ndarray):  # type: ignore[no-untyped-def]
        assert len(known) == len(latencies) == len(relative_sd)
        return lambda wanted: np.array([[float(arch in known)] for arch in wanted])

    assert cross_validate(fit, archs, times, np.ones(12)).ravel().tolist() == [0.0] * 12


def test_shrinking_by_hand() -> None:
    """Noise 0.1, and a variance of 0.01 that remains for the model: the midpoint of the logarithms."""
    errors = 100 * np.expm1(np.full(4, np.sqrt(0.02)))
    found, sd = shrink(np.full((4, 2), 10.0), np.full(4, 0.1), errors)
    assert found == pytest.approx(10 * np.exp(np.sqrt(0.02) / 2))
    assert sd == pytest.approx(0.1 / np.sqrt(2))


@pytest.mark.slow
def test_shrinking_reduces_the_error_of_noisy_measurements(lengths: Lengths) -> None:
    archs = design(0)[:MEASURED]
    truth = latencies(archs, lengths)
    noisy = truth * np.exp(np.random.default_rng(3).normal(0, 0.08, (MEASURED, 1)))
    sd = np.full(MEASURED, 0.08)
    fit = fit_predictor(archs, noisy, sd, lengths)
    found, found_sd = shrink(noisy, sd, fit.errors_pct)
    assert np.abs(np.log(found / truth)).mean() < 0.6 * np.abs(np.log(noisy / truth)).mean()
    assert (found_sd < sd).all()


def test_the_perceptron_of_hat_beats_a_constant(lengths: Lengths) -> None:
    known, unseen = design(0)[:60], design(0)[-200:]
    times = lengths.mean(latencies(known, lengths))[:, None]
    truth = lengths.mean(latencies(unseen, lengths))
    with threadpool_limits(1):  # on a busy host, two threads on small products wait for each other
        predicted = fit_hat(known, times, np.full(60, 0.01))(unseen)
    assert predicted.shape == (200, 1)
    assert (predicted > 0).all()
    found = error_summary(100 * (predicted[:, 0] / truth - 1))["median_abs_pct"]
    constant = error_summary(100 * (np.median(times) / truth - 1))["median_abs_pct"]
    assert found < constant / 3
