"""Parity: an exported form against PyTorch on real sentences, alone and in padded batches of mixed lengths."""

from collections.abc import Callable
from typing import Any

import numpy as np

from export.session import mean_pool, pad
from kdnas.errors import BoundError

Run = Callable[[np.ndarray, np.ndarray], np.ndarray]
BATCH = 16


def spread_over_lengths(lengths: np.ndarray, count: int) -> list[int]:
    """Indices of up to `count` rows, evenly spaced in the order of length: the shortest and the longest are there."""
    order = np.argsort(lengths, kind="stable")
    places = np.unique(np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int))
    return [int(order[place]) for place in places]


def torch_outputs(model: Any, task: str, rows: list[list[int]]) -> list[np.ndarray]:
    """What PyTorch answers to each row alone: logits (1, C) or last hidden states (T, D)."""
    import torch

    outputs = []
    with torch.inference_mode():
        for row in rows:
            ids = torch.tensor([row])
            answer = model(input_ids=ids, attention_mask=torch.ones_like(ids))
            outputs.append(
                answer.logits.numpy() if task == "text-classification" else answer.last_hidden_state[0].numpy()
            )
    return outputs


def compare(
    run: Run, task: str, rows: list[list[int]], reference: list[np.ndarray], pad_id: int, max_seq_len: int
) -> dict[str, float]:
    """Differences of a form from PyTorch, over real tokens only, in both ways of running it.

    Args:
        run: the form's (input_ids, attention_mask) -> output.
        rows: token ids of N sentences.
        reference: `torch_outputs` of them.

    Returns:
        max_abs_diff and mean_abs_diff over all values; max_abs_value of PyTorch, to judge them by; cosine_min and
        cosine_mean between mean-pooled embeddings (classifiers: between logits); labels_equal, the share of sentences
        with the same first label (classifiers only).
    """
    alone = [_split(run(*pad_exactly(row)), task, [row])[0] for row in rows]
    batched = padded_outputs(run, task, rows, pad_id, max_seq_len)
    differences = [
        np.abs(got - expected) for answers in (alone, batched) for got, expected in zip(answers, reference, strict=True)
    ]
    flat = np.concatenate([difference.ravel() for difference in differences])
    cosines = np.array([_cosine(got, want) for a in (alone, batched) for got, want in zip(a, reference, strict=True)])
    result = {
        "max_abs_diff": float(flat.max()) if np.isfinite(flat).all() else float("inf"),
        "mean_abs_diff": float(flat.mean(dtype=np.float64)),
        "max_abs_value": float(max(np.abs(expected).max() for expected in reference)),
        "cosine_min": float(cosines.min()),
        "cosine_mean": float(cosines.mean()),
    }
    if task == "text-classification":
        equal = [got.argmax() == want.argmax() for got, want in zip(alone + batched, reference * 2, strict=True)]
        result["labels_equal"] = float(np.mean(equal))
    return result


def require_bound(form: str, found: dict[str, float], bound: float) -> None:
    """Refuse a float32 form that differs from PyTorch by more than `bound`, relative to values beyond 1.

    Raises:
        BoundError: it does.
    """
    allowed = bound * max(1.0, found["max_abs_value"])
    if not found["max_abs_diff"] <= allowed:
        raise BoundError(
            f"{form}: differs from PyTorch by up to {found['max_abs_diff']:.2e} on real sentences, allowed is "
            f"{allowed:.2e}; the exported graph does not compute what was trained"
        )


def pad_exactly(row: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """One row without padding: ids and mask (1, T)."""
    ids = np.asarray([row], dtype=np.int64)
    return ids, np.ones_like(ids)


def padded_outputs(
    run: Run, task: str, rows: list[list[int]], pad_id: int, max_seq_len: int, seed: int = 0
) -> list[np.ndarray]:
    """Answers in the order of `rows`, run in batches of 16 of mixed lengths, without what belongs to padding."""
    order = np.random.default_rng(seed).permutation(len(rows))
    answers: list[np.ndarray] = [np.empty(0)] * len(rows)
    for start in range(0, len(order), BATCH):
        chosen = [int(index) for index in order[start : start + BATCH]]
        batch = [rows[index] for index in chosen]
        for index, answer in zip(chosen, _split(run(*pad(batch, pad_id, max_seq_len)), task, batch), strict=True):
            answers[index] = answer
    return answers


def _split(output: np.ndarray, task: str, rows: list[list[int]]) -> list[np.ndarray]:
    """One array a row: logits (1, C), or the states of its real tokens (T, D)."""
    if task == "text-classification":
        return [output[place : place + 1] for place in range(len(rows))]
    return [output[place, : len(row)] for place, row in enumerate(rows)]


def _cosine(got: np.ndarray, want: np.ndarray) -> float:
    """Between the normalised means over the first axis."""
    left, right = (mean_pool(array[None], np.ones((1, len(array)), dtype=np.int64))[0] for array in (got, want))
    return float(left @ right)
