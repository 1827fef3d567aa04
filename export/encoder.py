"""Conversion of texts to token ids in a session: by SentencePiece if the export found it equal, otherwise by `tokenizers`.

A Unigram tokenizer of 250,000 pieces takes 260 MB in `tokenizers`, which keeps a hash map for each prefix of a piece.
SentencePiece keeps the same prefixes in one array of 36 MB and takes a fifth of the time (results/export).
`kdnas.export.sentencepiece_form` converts `tokenizer.json` to a SentencePiece model in the same folder.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from kdnas.errors import UsageError

TOKENIZER = "tokenizer.json"
SENTENCEPIECE = "sentencepiece.model"
THREADED = 256  # minimum texts for several threads: SentencePiece starts new threads with each call


class Encoder(Protocol):
    """Converts single texts to token ids.

    Attributes:
        prefix: ids of the special tokens before a text.
        suffix: ids of the special tokens after it.
    """

    prefix: list[int]
    suffix: list[int]

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens, never cut."""


def read_encoder(folder: Path, sentencepiece: bool = False) -> Encoder:
    """The encoder of an export folder.

    Args:
        folder: holds `tokenizer.json` or `sentencepiece.model`.
        sentencepiece: read `sentencepiece.model`.

    Raises:
        UsageError: the file is missing or damaged.
    """
    file = folder / (SENTENCEPIECE if sentencepiece else TOKENIZER)
    try:
        return SentencePieceEncoder(file) if sentencepiece else TokenizersEncoder(file)
    except Exception as error:  # both libraries raise plain Exception for a missing or damaged file
        raise UsageError(f"{file}: cannot be read ({error}); export the model again") from error


class TokenizersEncoder:
    """Encoder for any kind of tokenizer, by the `tokenizers` library."""

    def __init__(self, file: Path) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(file))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.prefix, self.suffix = special_around(self._tokenizer)

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]


class SentencePieceEncoder:
    """Encoder for Unigram tokenizers, by the SentencePiece library.

    The name of a special token in a text becomes this token; spaces around it may be tokenised differently from `tokenizers`.
    """

    def __init__(self, file: Path) -> None:
        import sentencepiece

        processor = sentencepiece.SentencePieceProcessor(model_file=str(file))
        self._processor = processor
        self.prefix, self.suffix = [processor.bos_id()], [processor.eos_id()]
        numbers = [number for number in range(len(processor)) if processor.is_control(number)] + [processor.unk_id()]
        self._special = {processor.id_to_piece(number): number for number in numbers}
        self._spelled = re.compile("|".join(map(re.escape, sorted(self._special, key=len, reverse=True))))

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        if len(texts) < THREADED:
            return [self._ids(text) for text in texts]
        plain = self._processor.encode(list(texts), num_threads=len(os.sched_getaffinity(0)))
        return [self._ids(text) if self._spelled.search(text) else row for text, row in zip(texts, plain, strict=True)]

    def _ids(self, text: str) -> list[int]:
        if not self._spelled.search(text):
            return list(self._processor.encode(text))
        found: list[int] = []
        start = 0
        for match in self._spelled.finditer(text):
            found += [*self._processor.encode(text[start : match.start()]), self._special[match.group()]]
            start = match.end()
        return [*found, *self._processor.encode(text[start:])]


def special_around(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Ids of the special tokens that a `tokenizers.Tokenizer` adds before and after a text."""
    around = tokenizer.encode("a")
    marks = [bool(mark) for mark in around.special_tokens_mask]
    before = marks.index(False) if False in marks else len(marks)
    after = marks[::-1].index(False) if False in marks else 0
    return around.ids[:before], around.ids[len(marks) - after :]
