"""How a tokenizer joins two texts: the special tokens around and between them, and their token types.

This is read from the output of the tokenizer's post-processor for a pair. BERT gives `[CLS] A [SEP] B [SEP]` with type 1 from B
on, RoBERTa gives `<s> A </s></s> B </s>` with type 0 throughout, and MPNet gives two separators and type 1.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdnas.errors import UsageError


@dataclass(frozen=True)
class Joining:
    """The special tokens around texts, and token types.

    Args:
        before: number of special tokens before a single text.
        after: number of special tokens after a single text.
        start: ids before the first text of a pair.
        between: ids between the two texts.
        end: ids after the second text.
        start_types: token types of `start`; `between_types` and `end_types` accordingly.
        text_types: token types of the first and the second text.
    """

    before: int
    after: int
    start: tuple[int, ...]
    between: tuple[int, ...]
    end: tuple[int, ...]
    start_types: tuple[int, ...]
    between_types: tuple[int, ...]
    end_types: tuple[int, ...]
    text_types: tuple[int, int]

    @property
    def added(self) -> int:
        """Number of special tokens in a pair."""
        return len(self.start) + len(self.between) + len(self.end)

    def pair(self, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ids and token types (T,) of a pair, from the ids of both texts without special tokens."""
        ids = np.concatenate([self.start, first, self.between, second, self.end])
        one, other = self.text_types
        types = [*self.start_types, *[one] * len(first), *self.between_types, *[other] * len(second), *self.end_types]
        return ids.astype(np.int64), np.asarray(types, dtype=np.int64)


def read_joining(folder: Path) -> Joining:
    """Determine how the tokenizer in a model's folder joins texts.

    Args:
        folder: folder with `tokenizer.json`.

    Raises:
        UsageError: the file is missing or damaged, or the tokenizer gives no token for a letter.
    """
    from tokenizers import Tokenizer

    file = folder / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises plain Exception for a missing or damaged file
        raise UsageError(f"{file}: cannot be read ({error}); give a folder with a fast tokenizer") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return joining_of(tokenizer, str(file))


def joining_of(tokenizer: Any, name: str = "tokenizer") -> Joining:
    """Determine how a `tokenizers.Tokenizer` joins texts, from its encoding of two short texts.

    Raises:
        UsageError: the tokenizer gives no token for a letter.
    """
    single = _parts(tokenizer.encode("a"))
    pair = tokenizer.encode("a", "a")
    parts = _parts(pair)
    if not {0, 1} <= set(pair.sequence_ids):
        raise UsageError(f"{name}: it produces no token for 'a', so pairs cannot be built; set pair_fraction to 0")
    start, between, end = (tuple(pair.ids[index] for index in part) for part in parts)
    start_types, between_types, end_types = (tuple(pair.type_ids[index] for index in part) for part in parts)
    return Joining(
        before=len(single[0]),
        after=len(single[-1]),
        start=start,
        between=between,
        end=end,
        start_types=start_types,
        between_types=between_types,
        end_types=end_types,
        text_types=(pair.type_ids[pair.sequence_ids.index(0)], pair.type_ids[pair.sequence_ids.index(1)]),
    )


def _parts(encoding: Any) -> list[list[int]]:
    """Indices of the special tokens before the first text, between texts, and after the last text."""
    parts: list[list[int]] = [[]]
    inside = None
    for index, text in enumerate(encoding.sequence_ids):
        if text is None:
            parts[-1].append(index)
        elif text != inside:
            inside = text
            parts.append([])
    return parts
