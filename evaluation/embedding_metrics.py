"""Metrics of embeddings without fine-tuning, with the usual definitions: retrieval, bitext, similarity, pairs, clusters."""

from collections.abc import Sequence

import numpy as np

CLUSTER_STARTS = 10  # starts of k-means; the best one counts


def ndcg_at_k(scores: np.ndarray, relevant: Sequence[Sequence[int]], k: int = 10) -> float:
    """Mean normalised discounted cumulative gain of the k best documents (Järvelin and Kekäläinen 2002), with gains 0 and 1.

    Args:
        scores: (Q, N) score of each document for each query; equal scores keep the documents' order.
        relevant: numbers of the relevant documents of each query, at least one.
        k: number of documents.
    """
    discounts = 1 / np.log2(np.arange(2, k + 2))
    found = []
    for row, wanted in zip(best(scores, k), relevant, strict=True):
        gains = np.isin(row, list(wanted))
        found.append((gains * discounts[: len(row)]).sum() / discounts[: len(wanted)].sum())
    return float(np.mean(found))


def found_at_k(scores: np.ndarray, relevant: Sequence[Sequence[int]], k: int = 10) -> float:
    """Recall@k: mean fraction of the relevant documents that are among the k best; arguments as in `ndcg_at_k`."""
    rows = zip(best(scores, k), relevant, strict=True)
    return float(np.mean([np.isin(list(wanted), row).mean() for row, wanted in rows]))


def best(scores: np.ndarray, k: int) -> np.ndarray:
    """Numbers (Q, k) of the best documents, best first."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def spearman(truth: np.ndarray, cosines: np.ndarray) -> float:
    """Spearman's rank correlation of both (N,); 0 if one side is constant."""
    from kdnas.evaluation.metrics import correlations

    return correlations(truth, cosines)["spearman"]


def pair_precision(truth: np.ndarray, cosines: np.ndarray) -> float:
    """Average precision of ranking the pairs (N,) by cosine; `truth` is 1 for pairs with the same meaning."""
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(truth, cosines))


def v_measure(labels: Sequence[str], vectors: np.ndarray, seed: int = 0) -> float:
    """V-measure (Rosenberg and Hirschberg 2007) of k-means with as many clusters as labels.

    Args:
        labels: label of each text.
        vectors: (N, D) unit vectors.
        seed: seed of the first centres.
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import v_measure_score

    clusters = KMeans(len(set(labels)), n_init=CLUSTER_STARTS, random_state=seed).fit_predict(vectors)
    return float(v_measure_score(list(labels), clusters))
