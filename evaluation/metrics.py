"""Metrics of tasks as their benchmarks define them, and metrics of agreement between the embeddings of two models."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    matthews_corrcoef,
    precision_recall_curve,
    precision_score,
    recall_score,
)


def correlations(truth: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Pearson's and Spearman's correlation and their mean, as for STS-B; 0 if one side is constant. Both (N,)."""
    if np.ptp(truth) == 0 or np.ptp(predicted) == 0:
        return dict.fromkeys(("pearson", "spearman", "pearson_spearman"), 0.0)
    pearson, spearman = float(pearsonr(truth, predicted)[0]), float(spearmanr(truth, predicted)[0])
    return {"pearson": pearson, "spearman": spearman, "pearson_spearman": (pearson + spearman) / 2}


def classification_scores(truth: np.ndarray, probabilities: np.ndarray, positive: int | None) -> dict[str, float]:
    """Scores of one classifier on one split.

    Args:
        truth: (N,) class numbers.
        probabilities: (N, C); the prediction is the most probable class.
        positive: positive class of the binary metrics; if None, these are left out.

    Returns:
        accuracy, macro_f1 (over the classes that occur in truth or prediction), Matthews' correlation and calibration_error,
        and for a binary task binary_f1, average_precision and false_positive_rate of the positive class.
    """
    predicted = probabilities.argmax(1)
    scores = {
        "accuracy": float(accuracy_score(truth, predicted)),
        "macro_f1": float(f1_score(truth, predicted, average="macro", zero_division=0)),
        "matthews": float(matthews_corrcoef(truth, predicted)),
        "calibration_error": calibration_error(truth, probabilities),
    }
    if positive is not None:
        is_positive, says_positive = truth == positive, predicted == positive
        scores["binary_f1"] = float(f1_score(is_positive, says_positive, zero_division=0))
        scores["average_precision"] = float(average_precision_score(is_positive, probabilities[:, positive]))
        scores["false_positive_rate"] = false_positive_rate(is_positive, says_positive)
    return scores


def multi_label_scores(truth: np.ndarray, probabilities: np.ndarray, labels: Sequence[str]) -> dict[str, float]:
    """Scores of independent labels, each decided at a probability of a half, over the texts for which it is known.

    Args:
        truth: (N, C) 1, 0, or below 0 where a label is unknown.
        probabilities: (N, C).
        labels: names of the C labels.

    Returns:
        For each label with positives and negatives `NAME_macro_f1` (of its two classes), `NAME_binary_f1`,
        `NAME_average_precision` and `NAME_false_positive_rate`, and the unweighted mean of each over these labels, such as
        `macro_f1`. Without such a label the means are 0.
    """
    found: dict[str, float] = {}
    names = ("macro_f1", "binary_f1", "average_precision", "false_positive_rate")
    means: dict[str, list[float]] = {name: [] for name in names}
    for index, label in enumerate(labels):
        known = truth[:, index] >= 0
        right, chance = truth[known, index] >= 0.5, probabilities[known, index]
        if not right.any() or right.all():
            continue
        said = chance >= 0.5
        values = (
            f1_score(right, said, average="macro", zero_division=0),
            f1_score(right, said, zero_division=0),
            average_precision_score(right, chance),
            false_positive_rate(right, said),
        )
        for name, value in zip(names, values, strict=True):
            found[f"{label}_{name}"] = float(value)
            means[name].append(float(value))
    return {**{name: float(np.mean(each)) if each else 0.0 for name, each in means.items()}, **found}


def calibration_error(truth: np.ndarray, probabilities: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error (Guo et al. 2017, Eq. 3): mean gap between the probability and the accuracy of predictions.

    Args:
        truth: (N,) class numbers.
        probabilities: (N, C).
        bins: number of bins of equal width over the probability of the prediction.
    """
    confidence, right = probabilities.max(1), probabilities.argmax(1) == truth
    indices = np.minimum((confidence * bins).astype(int), bins - 1)
    counts = np.bincount(indices, minlength=bins)
    gaps = np.abs(np.bincount(indices, right, bins) - np.bincount(indices, confidence, bins))
    return float(gaps.sum() / counts.sum())


def threshold_for_precision(truth: np.ndarray, scores: np.ndarray, wanted: float) -> float | None:
    """The lowest threshold at which the precision is at least `wanted`; None if there is none.

    Args:
        truth: (N,) bool, True for positives.
        scores: (N,) probability of the positive class.
        wanted: precision to reach, from 0 to 1.
    """
    if not truth.any():
        return None
    precision, _, thresholds = precision_recall_curve(truth, scores)
    met = np.flatnonzero(precision[:-1] >= wanted)
    return float(thresholds[met[0]]) if len(met) else None


def at_threshold(truth: np.ndarray, scores: np.ndarray, threshold: float) -> dict[str, float]:
    """precision, recall and false_positive_rate if scores of at least the threshold count as positive. Both (N,)."""
    said = scores >= threshold
    return {
        "precision": float(precision_score(truth, said, zero_division=0)),
        "recall": float(recall_score(truth, said, zero_division=0)),
        "false_positive_rate": false_positive_rate(truth, said),
    }


def false_positive_rate(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Fraction of the negatives that are predicted positive; 0 if there are no negatives. Both (N,) bool."""
    negatives = int((~truth).sum())
    return float((predicted & ~truth).sum() / negatives) if negatives else 0.0


def majority_macro_f1(truth: list[int]) -> float:
    """Macro-F1 of always predicting the most frequent class: the baseline of a classifier that learnt nothing."""
    fraction = max(truth.count(label) for label in set(truth)) / len(truth)
    return 2 * fraction / (1 + fraction) / len(set(truth))


def retention(teacher: float, student: float) -> float | None:
    """Student score divided by teacher score; None if the teacher's score is 0."""
    return student / teacher if teacher > 0 else None


def neighbours(embeddings: np.ndarray, k: int, block: int = 512) -> np.ndarray:
    """The k nearest rows of each row by inner product, without the row itself: (N, D) -> (N, k), unordered."""
    count = len(embeddings)
    nearest = np.empty((count, k), dtype=np.int64)
    for start in range(0, count, block):
        similarity = embeddings[start : start + block] @ embeddings.T
        rows = np.arange(len(similarity))
        similarity[rows, start + rows] = -np.inf
        nearest[start : start + block] = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
    return nearest


def recall_at_k(teacher: np.ndarray, student: np.ndarray, k: int = 10) -> np.ndarray:
    """Fraction of the teacher's k nearest neighbours of each sentence that are among the student's: (N,).

    Args:
        teacher: (N, D_T) embeddings of unit length.
        student: (N, D_S) embeddings of the same N sentences, of unit length.
        k: number of neighbours; at most N - 1 are used.
    """
    k = min(k, len(teacher) - 1)
    pairs = zip(neighbours(teacher, k), neighbours(student, k), strict=True)
    return np.array([len(np.intersect1d(mine, theirs)) / k for mine, theirs in pairs])
