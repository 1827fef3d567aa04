"""Metrics of classification and of agreement between two models' spaces."""

import numpy as np
from sklearn.metrics import accuracy_score, average_precision_score, f1_score


def classification_scores(truth: np.ndarray, probabilities: np.ndarray, positive: int | None) -> dict[str, float]:
    """Scores of one classifier on one split.

    Args:
        truth: (N,) class numbers.
        probabilities: (N, C); the prediction is the largest.
        positive: the class that binary metrics are about; None leaves them out.

    Returns:
        accuracy and macro_f1 (over the classes that occur in truth or prediction), and for a binary task
        binary_f1, average_precision and false_positive_rate of the positive class.
    """
    predicted = probabilities.argmax(1)
    scores = {
        "accuracy": float(accuracy_score(truth, predicted)),
        "macro_f1": float(f1_score(truth, predicted, average="macro", zero_division=0)),
    }
    if positive is not None:
        is_positive, says_positive = truth == positive, predicted == positive
        scores["binary_f1"] = float(f1_score(is_positive, says_positive, zero_division=0))
        scores["average_precision"] = float(average_precision_score(is_positive, probabilities[:, positive]))
        scores["false_positive_rate"] = false_positive_rate(is_positive, says_positive)
    return scores


def false_positive_rate(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Share of the negatives that are called positive; 0 where there are no negatives. Both (N,) bool."""
    negatives = int((~truth).sum())
    return float((predicted & ~truth).sum() / negatives) if negatives else 0.0


def majority_macro_f1(truth: list[int]) -> float:
    """Macro-F1 of always naming the most frequent class: what a classifier that learnt nothing gets."""
    share = max(truth.count(label) for label in set(truth)) / len(truth)
    return 2 * share / (1 + share) / len(set(truth))


def retention(teacher: float, student: float) -> float | None:
    """Student score / teacher score; None where the teacher scores nothing."""
    return student / teacher if teacher > 0 else None


def neighbours(embeddings: np.ndarray, k: int, block: int = 512) -> np.ndarray:
    """The k nearest rows of each row by inner product, itself excluded: (N, D) -> (N, k), in no order."""
    count = len(embeddings)
    nearest = np.empty((count, k), dtype=np.int64)
    for start in range(0, count, block):
        similarity = embeddings[start : start + block] @ embeddings.T
        rows = np.arange(len(similarity))
        similarity[rows, start + rows] = -np.inf
        nearest[start : start + block] = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
    return nearest


def recall_at_k(teacher: np.ndarray, student: np.ndarray, k: int = 10) -> float:
    """Share of the teacher's k nearest neighbours that are among the student's.

    Args:
        teacher: (N, D_T) embeddings of unit length.
        student: (N, D_S) embeddings of the same N sentences, of unit length, in its own space.
        k: neighbours; at most N - 1 are used.
    """
    k = min(k, len(teacher) - 1)
    pairs = zip(neighbours(teacher, k), neighbours(student, k), strict=True)
    return float(np.mean([len(np.intersect1d(mine, theirs)) / k for mine, theirs in pairs]))
