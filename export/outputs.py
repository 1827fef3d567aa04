"""From a graph's outputs to answers: probabilities and pooled embeddings."""

import numpy as np


def answers_of_texts(logits: np.ndarray, multi_label: bool = False) -> np.ndarray:
    """Probabilities (B, C) of logits (B, C): one per label if labels are independent; a regression's logits (B, 1) unchanged."""
    if multi_label:
        return sigmoid(logits)
    return logits if logits.shape[-1] == 1 else softmax(logits)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)) of each value, without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)), dtype=logits.dtype)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis, (B, C)."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def pool(states: np.ndarray, mask: np.ndarray, pooling: str) -> np.ndarray:
    """L2-normalised vectors (B, D) of the states (B, T, D): the mean over real tokens, or the first token's."""
    return unit(pool_states(states, mask, pooling))


def pool_states(states: np.ndarray, mask: np.ndarray, pooling: str) -> np.ndarray:
    """The mean of the states (B, T, D) over real tokens, or the first token's state, (B, D)."""
    if pooling == "first":
        states, mask = states[:, :1], mask[:, :1]
    weights = mask[:, :, None].astype(states.dtype)
    return np.asarray((states * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1))


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (B, D) at unit length; zeros stay zeros."""
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12))
