"""Whole documents as passages that fit a model: cut at the ends of sentences, and of one group, so that neighbours are known."""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from kdnas.text.readers import TextRow

# Ends of sentences: line breaks, the stops of Chinese and Japanese, and other stops before white space.
SENTENCE_END = re.compile(r"\s*\n\s*|(?<=[。！？])\s*|(?<=[.!?…؟।።])\s+")
Lengths = Callable[[Sequence[str]], list[int]]  # number of tokens of each text, without special tokens


def cut(text: str, most: int, lengths: Lengths) -> list[str]:
    """Passages of at most `most` tokens, each of whole sentences; a sentence that is too long is halved at white space.

    Args:
        text: a document.
        most: maximum number of tokens, without special tokens.
        lengths: counts tokens.
    """
    sentences = [part for part in SENTENCE_END.split(text) if part.strip()]
    passages: list[str] = []
    room = 0
    for sentence, length in zip(sentences, lengths(sentences) if sentences else [], strict=True):
        if length <= room:
            passages[-1] += " " + sentence
            room -= length
        elif length <= most:
            passages.append(sentence)
            room = most - length
        else:
            passages += _halved(sentence, most, lengths)
            room = 0
    return passages


def _halved(text: str, most: int, lengths: Lengths) -> list[str]:
    """Parts of a text of at most `most` tokens, or of one character."""
    text = text.strip()
    if len(text) < 2 or lengths([text])[0] <= most:
        return [text] if text else []
    middle = len(text) // 2
    spaces = [found.start() for found in re.finditer(r"\s", text)]
    at = min(spaces, key=lambda index: abs(index - middle), default=middle)
    return _halved(text[:at], most, lengths) + _halved(text[at:], most, lengths)


def passage_rows(rows: Iterable[TextRow], tokenizer: Any, seq_len: int, grouped: bool) -> Iterator[TextRow]:
    """A row for each passage of the rows; the passages of a document have the same group.

    Args:
        rows: documents.
        tokenizer: a `tokenizers.Tokenizer` that neither pads nor cuts.
        seq_len: maximum number of tokens in a passage, with special tokens.
        grouped: whether the rows have groups of their own; else the group is a digest of the text.
    """

    def lengths(texts: Sequence[str]) -> list[int]:
        return [len(encoding.ids) for encoding in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    most = seq_len - tokenizer.num_special_tokens_to_add(is_pair=False)
    for row in rows:
        group = row.group if grouped else hashlib.sha256(row.group.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        for passage in cut(row.text, most, lengths):
            yield row._replace(text=passage, group=group)
