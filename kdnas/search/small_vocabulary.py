"""A student that knows the most frequent tokens of a corpus alone: the others are unknown to it, its teacher still reads them."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kdnas.errors import UsageError
from kdnas.text.corpus import Corpus

UNKNOWN = ("[UNK]", "<unk>")


class SmallVocabulary:
    """What a student of a smaller vocabulary reads, token by token, so that its states still pair with its teacher's.

    Cut for good (`kdnas export --vocabulary corpus --vocabulary_tokens N`), it reads a rare word as its smaller pieces instead,
    which says more: the loss with unknown tokens is the worst that a vocabulary can cost.

    Args:
        corpus: its train split counts the tokens.
        tokenizer: tokenizer.json of the teacher.

    Raises:
        UsageError: the tokenizer has no unknown token.
    """

    def __init__(self, corpus: Corpus, tokenizer: Path) -> None:
        from tokenizers import Tokenizer

        known = Tokenizer.from_file(str(tokenizer))
        unknown = next((number for name in UNKNOWN if (number := known.token_to_id(name)) is not None), None)
        if unknown is None:
            raise UsageError(f"vocabularies: {tokenizer} has none of {', '.join(UNKNOWN)}; leave them out")
        counts = np.bincount(corpus.train.tokens, minlength=known.get_vocab_size())
        counts[[unknown, corpus.pad_id]] = counts.max() + 1
        self._unknown, self._order = unknown, np.argsort(-counts, kind="stable")
        self._maps: dict[int, Tensor] = {}

    def __call__(self, ids: Tensor, size: int) -> Tensor:
        """Ids of a batch, as a student with `size` tokens reads them; with 0 as they are."""
        if not size:
            return ids
        if size not in self._maps:
            read = np.full(len(self._order), self._unknown, dtype=np.int64)
            read[self._order[:size]] = self._order[:size]
            self._maps[size] = torch.from_numpy(read)
        return self._maps[size].to(ids.device)[ids]
