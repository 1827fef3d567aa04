"""Tokenizers for texts that are already split into words."""

import json
from typing import Any

from tokenizers import Tokenizer


def for_words(tokenizer: Any) -> Any:
    """The tokenizer to use with `is_pretokenized=True`: a byte-level one that marks the first token of every word.

    Byte-level BPE (RoBERTa) keeps the space before a word in the word's first token. Words of a list have no space before them,
    so each would be read as the continuation of the word before it. transformers asks for `add_prefix_space=True` in this case;
    the result is the same. Other tokenizers mark words themselves and are returned as they are.

    Args:
        tokenizer: a `tokenizers.Tokenizer`; it is not changed.
    """
    before = tokenizer.pre_tokenizer
    if before is None or b'"ByteLevel"' not in bytes(before.__getstate__()):
        return tokenizer
    description = json.loads(tokenizer.to_str())
    _add_prefix_space(description["pre_tokenizer"])
    return Tokenizer.from_str(json.dumps(description))


def _add_prefix_space(step: dict[str, Any]) -> None:
    """Set `add_prefix_space` in every byte-level step of a pre-tokenizer's description."""
    if step["type"] == "ByteLevel":
        step["add_prefix_space"] = True
    for inner in step.get("pretokenizers", ()):
        _add_prefix_space(inner)
