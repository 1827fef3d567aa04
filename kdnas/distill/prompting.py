"""Puts a teacher's prompts, such as `query: `, before the texts of a batch of token ids."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kdnas.models.head import Prompts
from kdnas.text.joining import read_joining

Inputs = tuple[Tensor, Tensor, Tensor | None]


class Prompting:
    """Inserts the ids of one prompt after the special tokens at the start of each text.

    With several prompts, the number of real tokens of the batch chooses one, so the choice depends on the batch alone and a
    resumed run makes it again. Batches that would have more tokens than the model has positions stay as they are.

    Args:
        prompts: ids of each prompt, without special tokens.
        before: number of special tokens before a text.
        positions: maximum number of tokens.
    """

    def __init__(self, prompts: Sequence[Sequence[int]] = (), before: int = 1, positions: int = 512) -> None:
        self.prompts, self._before, self._positions = prompts, before, positions

    def __call__(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None) -> Inputs:
        """Ids, mask and token types (B, T) with the prompt, (B, T + P)."""
        if not self.prompts:
            return input_ids, attention_mask, token_type_ids
        prompt = self.prompts[int(attention_mask.sum()) % len(self.prompts)]
        if input_ids.shape[1] + len(prompt) > self._positions:
            return input_ids, attention_mask, token_type_ids
        rows = input_ids.new_tensor(list(prompt)).expand(len(input_ids), -1)

        def inserted(values: Tensor, middle: Tensor) -> Tensor:
            return torch.cat([values[:, : self._before], middle, values[:, self._before :]], dim=1)

        types = None if token_type_ids is None else inserted(token_type_ids, torch.zeros_like(rows))
        return inserted(input_ids, rows), inserted(attention_mask, torch.ones_like(rows)), types

    def row(self, ids: np.ndarray, number: int) -> np.ndarray:
        """One text's ids (T,) with the prompt of a number, modulo the number of prompts: (T + P,)."""
        prompt = self.prompts[number % len(self.prompts)] if self.prompts else ()
        return np.insert(ids, self._before, prompt) if len(ids) + len(prompt) <= self._positions else ids

    def lengths(self, lengths: np.ndarray) -> np.ndarray:
        """Number of tokens of each row (N,) of `row`, from the lengths (N,) without prompts."""
        if not self.prompts:
            return lengths
        longer = lengths + np.resize([len(prompt) for prompt in self.prompts], len(lengths))
        return np.where(longer <= self._positions, longer, lengths)


def read_prompting(tokenizer: Path, prompts: Prompts, positions: int) -> Prompting:
    """The prompts of a model as token ids.

    Args:
        tokenizer: folder with `tokenizer.json`.
        prompts: the model's prompts.
        positions: maximum number of tokens.
    """
    if not prompts.texts:
        return Prompting()
    from tokenizers import Tokenizer

    encoder = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    encoder.no_padding()
    encoder.no_truncation()
    # A prompt's last space belongs to the text after it.
    ids = [encoder.encode(text.rstrip(), add_special_tokens=False).ids for text in prompts.texts.values()]
    return Prompting(ids, read_joining(tokenizer).before, positions)
