"""Calibration of a multi-label classifier and its decision thresholds, both on dev rows.

Calibration is temperature scaling (Guo et al. 2017, Section 4.2), for each label: its logit is multiplied by the scale (one over
the temperature) with the smallest binary cross-entropy on the dev rows for which the label is known. Decisions at a probability
of a half do not change. The logits are not moved to the base rate of dev: that is the choice of the authors of the sets, and
says nothing about other texts. The scale becomes part of the last layer, so every runtime gives the same probabilities.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kdnas.evaluation.hap_classifier.options import Wanted
from kdnas.evaluation.metrics import at_threshold
from kdnas.export.outputs import sigmoid
from kdnas.export.thresholds import SCHEMA

# Rows of each class that a label needs for a calibration, and that a language needs for a threshold of its own.
LEAST = 20
SCALES = (0.05, 20.0)
GRID = np.arange(1, 10_000) / 10_000
# Texts that a threshold must call positive for its precision to mean something.
LEAST_SAID = 10


def fit_scale(logits: np.ndarray, truth: np.ndarray) -> float:
    """The factor on the logits with the smallest binary cross-entropy, from `SCALES`.

    Args:
        logits: (N,) logits of one label.
        truth: (N,) 1 or 0.

    Returns:
        The scale; 1 if either class has fewer than `LEAST` rows.
    """
    from scipy.optimize import minimize_scalar

    right = truth >= 0.5
    positives, negatives = int(right.sum()), int((~right).sum())
    if min(positives, negatives) < LEAST:
        return 1.0
    values = np.asarray(logits, dtype=np.float64)
    # Platt's targets (1999), slightly inside of 0 and 1, keep the scale finite for separable rows.
    wanted = np.where(right, (positives + 1) / (positives + 2), 1 / (negatives + 2))

    def loss(power: float) -> float:
        scores = np.exp(power) * values
        return float(np.mean(np.logaddexp(0, scores) - wanted * scores))

    bounds = tuple(np.log(SCALES))
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x))


def calibrate(logits: np.ndarray, truth: np.ndarray, labels: Sequence[str]) -> dict[str, dict[str, float]]:
    """Scale of each label, and the calibration error on the same rows before and after.

    Args:
        logits: (N, C).
        truth: (N, C) 1, 0, or below 0 where a label is unknown.
        labels: names of the C labels.
    """
    found = {}
    for index, name in enumerate(labels):
        known = truth[:, index] >= 0
        given, right = logits[known, index], truth[known, index]
        scale = fit_scale(given, right)
        before, after = (binary_calibration_error(right, sigmoid(one)) for one in (given, scale * given))
        found[name] = {"scale": scale, "rows": int(known.sum()), "error_before": before, "error_after": after}
    return found


def binary_calibration_error(truth: np.ndarray, chance: np.ndarray, bins: int = 15) -> float:
    """Mean gap between probability and frequency of positives in `bins` bins of equal width; 0 without rows. Both (N,)."""
    if not len(truth):
        return 0.0
    indices = np.minimum((chance * bins).astype(int), bins - 1)
    gaps = np.abs(np.bincount(indices, truth, bins) - np.bincount(indices, chance, bins))
    return float(gaps.sum() / len(truth))


def fold_calibration(model: Any, calibration: Mapping[str, Mapping[str, float]]) -> None:
    """Multiply the rows and biases of the last layer by the scales, so that the logits are calibrated.

    Args:
        model: a classifier of transformers with as many outputs as `calibration` has labels, in their order.
        calibration: what `calibrate` returns.
    """
    import torch

    layers = [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear)]
    last = [layer for layer in layers if layer.out_features == len(calibration)][-1]
    scale = torch.tensor([one["scale"] for one in calibration.values()], dtype=last.weight.dtype).to(last.weight.device)
    with torch.no_grad():
        last.weight.mul_(scale[:, None])
        last.bias.mul_(scale)


def lowest_threshold(truth: np.ndarray, chance: np.ndarray, wanted: Wanted) -> float | None:
    """The lowest of the thresholds 0.0001, 0.0002, ... that reaches what is wanted; None if none does.

    Args:
        truth: (N,) bool.
        chance: (N,) probabilities.
        wanted: precision or false-positive rate.
    """
    said = len(chance) - np.searchsorted(np.sort(chance), GRID)
    false = int((~truth).sum()) - np.searchsorted(np.sort(chance[~truth]), GRID)
    if wanted.name == "precision":
        met = (said - false >= wanted.value * said) & (said >= LEAST_SAID)
    else:
        met = false <= wanted.value * max(int((~truth).sum()), 1)
    indices = np.flatnonzero(met)
    return float(GRID[indices[0]]) if len(indices) else None


def choose_thresholds(
    truth: np.ndarray, chance: np.ndarray, languages: Sequence[str], labels: Sequence[str], wanted: Wanted
) -> dict[str, Any]:
    """Thresholds of each label and language, in the format of `kdnas.export.thresholds` without the calibration.

    A language with fewer than `LEAST` positives or negatives of a label has no entry: its threshold is that of all languages.

    Args:
        truth: (N, C) 1, 0, or below 0 where a label is unknown.
        chance: (N, C) calibrated probabilities.
        languages: language of each row.
        labels: names of the C labels.
        wanted: precision or false-positive rate that each threshold reaches.
    """
    found: dict[str, Any] = {}
    codes = np.asarray(languages)
    for index, name in enumerate(labels):
        known = truth[:, index] >= 0
        found[name] = _entry(truth[known, index], chance[known, index], wanted)
        found[name]["languages"] = {}
        for code in sorted(set(codes.tolist())):
            rows = known & (codes == code)
            positives = int((truth[rows, index] >= 0.5).sum())
            if min(positives, int(rows.sum()) - positives) >= LEAST:
                found[name]["languages"][code] = _entry(truth[rows, index], chance[rows, index], wanted)
    return {"schema": SCHEMA, "wanted": {wanted.name: wanted.value}, "labels": found}


def _entry(truth: np.ndarray, chance: np.ndarray, wanted: Wanted) -> dict[str, Any]:
    right = truth >= 0.5
    usable = min(int(right.sum()), int((~right).sum())) >= LEAST
    threshold = lowest_threshold(right, chance, wanted) if usable else None
    measured: dict[str, float | None] = dict.fromkeys(("precision", "recall", "false_positive_rate"))
    if threshold is not None:
        measured = dict(at_threshold(right, chance, threshold))
    return {"threshold": threshold, "rows": len(right), "positives": int(right.sum()), **measured}
