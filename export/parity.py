"""Parity: compares an exported form with PyTorch on real sentences, alone and in padded batches of mixed lengths."""

from itertools import cycle
from typing import Any

import numpy as np

from kdnas.errors import BoundError
from kdnas.export.engines import Forward
from kdnas.export.folder import TASKS
from kdnas.export.outputs import pool
from kdnas.models.family import has_types
from kdnas.models.pooling import Pooling
from kdnas.text.padding import pad

BATCHES = (1, 2, 4, 8, 16, 32)
BATCH_TOKENS = 1024  # with padding; 32 sentences of 32, or two of 512
QUANTILES = (0.5, 0.9, 0.99)


def spread_over_lengths(lengths: np.ndarray, count: int) -> list[int]:
    """Indices of up to `count` rows, evenly spaced in the order of length, with the shortest and the longest."""
    order = np.argsort(lengths, kind="stable")
    indices = np.unique(np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int))
    return [int(order[index]) for index in indices]


def torch_forward(model: Any, task: str) -> Forward:
    """The PyTorch model as a `Forward` function, as the reference of comparisons."""
    import torch

    def run(input_ids: np.ndarray, attention_mask: np.ndarray, token_type_ids: np.ndarray | None = None) -> np.ndarray:
        feeds = {"input_ids": input_ids, "attention_mask": attention_mask}
        if typed and token_type_ids is not None:
            feeds["token_type_ids"] = token_type_ids
        with torch.inference_mode():
            answer = model(**{name: torch.from_numpy(values).to(model.device) for name, values in feeds.items()})
        found = [getattr(answer, name).float().cpu().numpy() for name in TASKS[task]]
        return found[0] if len(found) == 1 else np.stack(found, axis=-1)

    typed = has_types(model.config)
    return run


def torch_outputs(model: Any, task: str, rows: list[list[int]]) -> list[np.ndarray]:
    """PyTorch's outputs for each row alone: logits (1, C) of a text, otherwise (T, D) for its T tokens."""
    run = torch_forward(model, task)
    return [_split(run(*pad_exactly(row)), task, [row])[0] for row in rows]


def compare(
    run: Forward,
    task: str,
    rows: list[list[int]],
    reference: list[np.ndarray],
    pad_id: int,
    max_seq_len: int,
    pooling: Pooling = "mean",
    multi_label: bool = False,
) -> dict[str, float]:
    """Differences of a form from PyTorch over real tokens, with every row alone and every second row in batches.

    Args:
        run: the form's (input_ids, attention_mask) -> output.
        task: task of the model.
        rows: token ids of N sentences.
        reference: `torch_outputs` of the rows.
        pad_id: id of the padding token.
        max_seq_len: maximum length of the model in tokens.
        pooling: how an encoder's states become one vector.

    Returns:
        max_abs_diff, mean_abs_diff and quantiles over all values; max_abs_value of PyTorch's values, for scale; cosine_min
        and cosine_mean between the pooled vectors (text classifiers: between logits); batch_max_abs_diff, the largest
        difference between a row alone and in a batch; and labels_equal, the fraction of texts or tokens with the same best
        label or of texts with the same answer, or for numbers their correlation. In a float32 form within its bound a label
        differs only if PyTorch's two best logits differ by at most twice the bound.
    """
    alone = [_split(run(*pad_exactly(row)), task, [row])[0] for row in rows]
    half = slice(None, None, -2)  # batches cost more than single rows; the last row is the longest
    batched = padded_outputs(run, task, rows[half], pad_id, max_seq_len)
    pairs = list(zip(alone + batched, reference + reference[half], strict=True))
    flat = np.concatenate([np.abs(got - expected).ravel() for got, expected in pairs])
    cosines = np.array([_cosine(got, expected, pooling) for got, expected in pairs])
    moved = np.concatenate([np.abs(one - other).ravel() for one, other in zip(alone[half], batched, strict=True)])
    result = {
        "max_abs_diff": float(flat.max()) if np.isfinite(flat).all() else float("inf"),
        "mean_abs_diff": float(flat.mean(dtype=np.float64)),
        **{f"p{100 * fraction:.0f}_abs_diff": float(np.quantile(flat, fraction)) for fraction in QUANTILES},
        "max_abs_value": float(max(np.abs(expected).max() for expected in reference)),
        "cosine_min": float(cosines.min()),
        "cosine_mean": float(cosines.mean()),
        "batch_max_abs_diff": float(moved.max()) if np.isfinite(moved).all() else float("inf"),
    }
    if is_number(task, reference[0]):
        result["correlation"] = _correlation(*(np.ravel(side) for side in zip(*pairs, strict=True)))
    elif multi_label:
        # Each label of a text is decided at a probability of a half, a logit of 0.
        result["labels_equal"] = float(
            np.concatenate([np.ravel((got > 0) == (want > 0)) for got, want in pairs]).mean()
        )
    elif task != "feature-extraction":
        # The label of a text or token; or the first and last token of an answer.
        axis = 0 if task == "question-answering" else -1
        equal = [got.argmax(axis) == want.argmax(axis) for got, want in pairs]
        if task == "question-answering":
            equal = [np.atleast_1d(same.all()) for same in equal]
        result["labels_equal"] = float(np.concatenate(equal).mean())
    return result


def is_number(task: str, answer: np.ndarray) -> bool:
    """Whether the output (1, C) for a text is one number (regression) instead of logits."""
    return task == "text-classification" and answer.shape[1] == 1


def _correlation(got: np.ndarray, want: np.ndarray) -> float:
    """Pearson correlation; 0 if the outputs are constant and the reference is not."""
    if np.ptp(want) == 0 or not np.ptp(got) > 0:
        return float(np.array_equal(got, want))
    return float(np.corrcoef(got.astype(np.float64), want.astype(np.float64))[0, 1])


def require_bound(form: str, found: dict[str, float], bound: float) -> None:
    """Refuse a float32 form that differs from PyTorch by more than `bound`, relative for values above 1.

    Raises:
        BoundError: the difference exceeds the bound.
    """
    allowed = bound * max(1.0, found["max_abs_value"])
    if not found["max_abs_diff"] <= allowed:
        raise BoundError(
            f"{form}: differs from PyTorch by up to {found['max_abs_diff']:.2e} on real sentences, the limit is "
            f"{allowed:.2e}; the exported graph does not compute the same function as the model"
        )


def pad_exactly(row: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """One row without padding: ids and mask (1, T)."""
    ids = np.asarray([row], dtype=np.int64)
    return ids, np.ones_like(ids)


def padded_outputs(
    run: Forward, task: str, rows: list[list[int]], pad_id: int, max_seq_len: int, seed: int = 0
) -> list[np.ndarray]:
    """Outputs in the order of `rows`, run in batches of mixed lengths, without those of padding.

    A batch has 1 to 32 rows, but at most `BATCH_TOKENS` padded tokens: batches of 32 rows of 512 tokens took most of an
    export's time and showed no more than three rows do.
    """
    order = np.random.default_rng(seed).permutation(len(rows)).tolist()
    answers: list[np.ndarray] = [np.empty(0)] * len(rows)
    for size in cycle(BATCHES):
        while size > 1 and size * max((len(rows[index]) for index in order[:size]), default=0) > BATCH_TOKENS:
            size -= 1
        chosen, order = order[:size], order[size:]
        if not chosen:
            break
        batch = [rows[index] for index in chosen]
        for index, answer in zip(chosen, _split(run(*pad(batch, pad_id, max_seq_len)), task, batch), strict=True):
            answers[index] = answer
    return answers


def _split(output: np.ndarray, task: str, rows: list[list[int]]) -> list[np.ndarray]:
    """One array per row: logits (1, C) of a text, or the outputs (T, D) of its real tokens."""
    if task == "text-classification":
        return [output[index : index + 1] for index in range(len(rows))]
    return [output[index, : len(row)] for index, row in enumerate(rows)]


def _cosine(got: np.ndarray, want: np.ndarray, pooling: Pooling) -> float:
    """Cosine between two outputs of one row (T, D) or (1, C), pooled over the first axis."""
    left, right = (pool(array[None], np.ones((1, len(array)), dtype=np.int64), pooling)[0] for array in (got, want))
    return float(left @ right)
