"""Teaches the gate: logistic regression on the classifier's probabilities."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from kdnas.filtering.ngrams import BITS, blocks, grams

DECAY = 1e-5  # of the squared weights, per text
STEPS = 60
LARGEST = 2**15 - 1
EDGE = 1e-4  # probabilities are at least this far from 0 and 1
DIGITS = 3  # of the targets, so that the last digits of a score, which may differ between hosts, do not matter


def targets(scores: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """How clearly each sentence is positive: 0.5 if one of its scores equals its level, less below, more above.

    Args:
        scores: (N, L) probabilities.
        levels: (N, L) score from which each sentence is positive; infinite for a label that it cannot get.

    Returns:
        (N,) numbers in 0 to 1.
    """
    shifted = np.where(np.isinf(levels), -np.inf, _logit(scores) - _logit(levels))
    return np.round(1 / (1 + np.exp(-shifted.max(axis=1))), DIGITS)


def _logit(values: np.ndarray) -> np.ndarray:
    inside = np.clip(values, EDGE, 1 - EDGE)
    return np.log(inside) - np.log1p(-inside)


def feature_matrix(texts: Sequence[str]) -> Any:
    """The n-gram counts of texts, divided by the square root of their sum, as `scipy.sparse.csr_matrix` (N, 2**BITS)."""
    from scipy.sparse import csr_matrix, vstack

    parts = []
    for first, end in blocks(texts):
        rows, columns = [], []
        for one in grams(texts[first:end]):
            counts = one.ends - one.starts
            shift = np.repeat(one.starts - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts)
            columns.append(one.buckets[np.arange(len(shift)) + shift])
            rows.append(np.repeat(np.arange(end - first), counts))
        row, column = np.concatenate(rows), np.concatenate(columns)
        norms = 1 / np.sqrt(np.maximum(np.bincount(row, minlength=end - first), 1))
        parts.append(csr_matrix((norms[row].astype(np.float32), (row, column)), (end - first, 2**BITS)))
    return vstack(parts, "csr")


def teach(texts: Sequence[str], wanted: np.ndarray) -> np.ndarray:
    """Weights (2**BITS,) int16 with which the gate's scores rank texts as `wanted` does.

    Args:
        texts: N texts.
        wanted: (N,) numbers in 0 to 1, as from `targets`.
    """
    from scipy.optimize import minimize

    matrix = feature_matrix(texts)
    used = np.unique(matrix.indices)  # other buckets keep the weight 0
    matrix = matrix[:, used]
    rarity = np.log(
        (1 + len(texts)) / (1 + np.bincount(matrix.indices, minlength=len(used)))
    )  # rare n-grams learn faster
    matrix = matrix.multiply(rarity).tocsr()
    turned = matrix.T.tocsr()

    def loss(point: np.ndarray) -> tuple[float, np.ndarray]:
        weights, bias = point[:-1], point[-1]
        logits = matrix @ weights + bias
        value = np.logaddexp(0, logits).mean() - (wanted * logits).mean() + 0.5 * DECAY * (weights @ weights)
        slope = (1 / (1 + np.exp(-logits)) - wanted) / len(texts)
        return float(value), np.concatenate([turned @ slope + DECAY * weights, [slope.sum()]])

    start = np.zeros(len(used) + 1)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": STEPS}).x[:-1] * rarity
    weights = np.zeros(2**BITS, np.int16)
    weights[used] = np.round(found * (LARGEST / max(float(np.abs(found).max()), 1e-9)))
    return weights
