"""Batches of sentence pairs: what tasks on two texts ask of an encoder is not learnt from single sentences alone.

Pairs are joined as the tokenizer joins them. The second sentence is another one, or, every other time, one that begins as the
first does, so that attention learns to compare.
"""

import numpy as np
import torch
from torch import Tensor
from transformers import PretrainedConfig

from kdnas.text.padding import pad
from kdnas.text.sentences import Sentences


def separators_of(config: PretrainedConfig) -> int:
    """Separator tokens between the two texts of a pair: 1 as BERT has it, 2 as RoBERTa and XLM-RoBERTa."""
    return 1 if config.model_type == "bert" else 2


def pair_batch(
    sentences: Sentences, indices: np.ndarray, pad_id: int, config: PretrainedConfig, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Padded ids and mask (about B / 2, T) int64 of a batch's sentences, two by two; an odd one is joined to one of the others.

    Args:
        sentences: where they are; each begins and ends with a special token.
        indices: (B,) numbers of the sentences.
        pad_id: of padding tokens.
        config: of the model; the second sentence is cut to its positions.
        rng: draws the order and how much is shared.
    """
    order = rng.permutation(indices)
    half = (len(order) + 1) // 2
    between, longest = separators_of(config), config.max_position_embeddings - 2
    rows = []
    for place, (one, other) in enumerate(zip(order[:half], order[-half:], strict=True)):
        first, second = sentences[int(one)], sentences[int(other)]
        shared = int(rng.integers(1, len(first))) if place % 2 else 1
        room = max(0, longest - len(first) - between)
        body = np.concatenate([first[1:shared], second[shared:-1]])[:room]
        rows.append(np.concatenate([first, first[-1:].repeat(between - 1), body, first[-1:]]))
    return pad(rows, pad_id)


def segments(ids: Tensor, mask: Tensor, config: PretrainedConfig) -> Tensor | None:
    """Token types (B, T) of ids and mask (B, T): 1 behind the first separator; None for models that have one type.

    Rows end with a separator, so that single sentences are 0 all over.
    """
    if config.type_vocab_size < 2:
        return None
    last = ids[torch.arange(len(ids), device=ids.device), mask.sum(1) - 1]
    ends = (ids == last[:, None]).long()
    return (ends.cumsum(1) - ends).clamp(max=1) * mask
