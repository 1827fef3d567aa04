"""Padding of rows of token ids to a rectangle, with the same widths in training, evaluation and every exported session."""

from collections.abc import Sequence

import numpy as np

# Padded lengths are multiples of this, because each new shape costs the engines a slow first run and some memory.
LENGTH_STEP = 8


def padded_length(length: int, step: int = LENGTH_STEP) -> int:
    """The next multiple of `step`."""
    return -(-length // step) * step


def pad(
    rows: Sequence[Sequence[int] | np.ndarray], pad_id: int, max_seq_len: int | None = None, step: int = LENGTH_STEP
) -> tuple[np.ndarray, np.ndarray]:
    """Ids and mask (B, T) int64 of rows; T is a multiple of `step`, or `max_seq_len` if that is smaller."""
    width = padded_length(max(map(len, rows)), step)
    if max_seq_len is not None:
        width = min(width, max_seq_len)
    ids = np.full((len(rows), width), pad_id, dtype=np.int64)
    mask = np.zeros((len(rows), width), dtype=np.int64)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
    return ids, mask
