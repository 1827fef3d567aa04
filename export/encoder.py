"""Conversion of texts to token ids in a session: by tokie or SentencePiece if the export found it equal, else by `tokenizers`.

WordPiece takes `tokenizers` about five times as long as tokie. A Unigram tokenizer of 250,000 pieces takes a second to load and
299 MB in `tokenizers`, 0.2 s and 44 MB in tokie (results/export). `kdnas.export.fast_tokenizer` writes the file of either library
beside `tokenizer.json`.
"""

import json
import os
import re
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from kdnas.errors import UsageError
from kdnas.export.characters import Characters

TOKENIZER = "tokenizer.json"
SENTENCEPIECE = "sentencepiece.model"
TOKIE = "tokenizer.tkz"
TOKIE_DETAILS = "tokie.json"  # beside `tokenizer.tkz`: where tokie differs from `tokenizers`
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


def read_encoder(folder: Path, name: str = TOKENIZER) -> Encoder:
    """The encoder of an export folder.

    Args:
        folder: holds the file.
        name: `tokenizer.json`, `sentencepiece.model` or `tokenizer.tkz`.

    Raises:
        UsageError: the file is missing or damaged, or of another kind.
    """
    kinds: dict[str, Callable[[Path], Encoder]] = {
        TOKENIZER: TokenizersEncoder,
        SENTENCEPIECE: SentencePieceEncoder,
        TOKIE: TokieEncoder,
    }
    try:
        return kinds[name](folder / name)
    except BaseException as error:  # the libraries raise plain Exception for a damaged file; tokie panics
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise UsageError(f"{folder / name}: cannot be read ({error}); export the model again") from error


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


class TokieEncoder:
    """Encoder by the tokie library, with the differences in `tokie.json` mended.

    Its tables of Unicode are newer than those of `tokenizers`. For WordPiece and BPE, texts with a character that both treat
    differently are encoded by `tokenizers`, which is loaded with the first such text.
    """

    def __init__(self, file: Path) -> None:
        import tokie

        self._folder = file.parent
        self._tokenizer = tokie.Tokenizer.from_file(str(file))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        details = json.loads((self._folder / TOKIE_DETAILS).read_text())
        self.prefix, self.suffix = details["prefix"], details["suffix"]
        self._blank: list[int] = details["blank"]
        others = details["other_characters"]
        self._other = None if others is None else Characters(others)

    @cached_property
    def _whole(self) -> TokenizersEncoder:
        return TokenizersEncoder(self._folder / TOKENIZER)

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        if len(texts) < THREADED:
            return [self._mended(text, self._tokenizer.encode(text, False).ids) for text in texts]
        encodings = self._tokenizer.encode_batch(list(texts), False)
        return [self._mended(text, encoding.ids) for text, encoding in zip(texts, encodings, strict=True)]

    def _mended(self, text: str, ids: list[int]) -> list[int]:
        """The ids of `tokenizers`, given those of tokie."""
        if self._other is not None and self._other.occur_in(text):
            return self._whole.ids([text])[0]
        return [] if ids == self._blank else ids


def special_around(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Ids of the special tokens that a `tokenizers.Tokenizer` adds before and after a text."""
    around = tokenizer.encode("a")
    marks = [bool(mark) for mark in around.special_tokens_mask]
    before = marks.index(False) if False in marks else len(marks)
    after = marks[::-1].index(False) if False in marks else 0
    return around.ids[:before], around.ids[len(marks) - after :]
