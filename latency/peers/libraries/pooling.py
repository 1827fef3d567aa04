"""What a user of a bare engine writes: tokenise with the `tokenizers` library, pad, run, pool, scale to unit length."""

from collections.abc import Callable, Sequence

import numpy as np

from kdnas.export.outputs import pool
from kdnas.latency.peers.libraries import Job
from kdnas.text.padding import pad

States = Callable[[np.ndarray, np.ndarray], np.ndarray]  # ids and mask (B, T) int64 -> hidden states (B, T, D)
Embed = Callable[[Sequence[str]], np.ndarray]
EmbedIds = Callable[[Sequence[Sequence[int]]], np.ndarray]


def embedder(job: Job, states: States) -> tuple[Embed, EmbedIds]:
    """From a function on ids to functions on texts and on rows of ids, both with vectors (N, D) as results."""
    encode = encoder(job)

    def embed_ids(rows: Sequence[Sequence[int]]) -> np.ndarray:
        ids, mask = pad(rows, 0, job.max_seq_len, 1)  # masked tokens do not count, whatever their id
        return pool(states(ids, mask), mask, job.pooling)

    return lambda texts: embed_ids(encode(texts)), embed_ids


def encoder(job: Job) -> Callable[[Sequence[str]], list[list[int]]]:
    """The model's tokenizer as a function from texts to rows of ids."""
    from kdnas.export.folder import read_tokenizer, token_ids

    tokenizer = read_tokenizer(job.exported / "tokenizer.json", job.max_seq_len)
    return lambda texts: token_ids(tokenizer, list(texts))


def feeds(names: Sequence[str], ids: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    """The inputs of a graph by its input names; single texts have token type 0."""
    known = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    return {name: known[name] for name in names}
