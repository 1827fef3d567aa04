"""Converts a tokenizer.json to tokie's own form, with what both libraries treat differently."""

import json
from pathlib import Path

from kdnas.export.characters import differing_characters, rare_ones_differ
from kdnas.export.encoder import TOKENIZER, TOKIE, TOKIE_DETAILS, TokenizersEncoder


def write_tokie(folder: Path) -> bool:
    """Write `tokenizer.tkz` and `tokie.json` beside `tokenizer.json`; returns False if tokie cannot read the tokenizer.

    `tokie.json` has the special tokens before and after a text (tokie omits those after it for Unigram), the ids that tokie gives
    a blank text where `tokenizers` gives none, and the characters that both treat differently, beside the rare ones; null if they
    treat all alike.
    """
    import tokie

    file = folder / TOKENIZER
    try:
        tokenizer = tokie.Tokenizer.from_json(str(file))
    except Exception:  # the library raises it for kinds of tokenizers that it does not know
        return False
    whole = TokenizersEncoder(file)

    def ids(texts: list[str]) -> list[list[int]]:
        return [encoding.ids for encoding in tokenizer.encode_batch(texts, False)]

    tokenizer.save(str(folder / TOKIE))
    others = differing_characters(ids, whole.ids)
    details = {
        "prefix": whole.prefix,
        "suffix": whole.suffix,
        "blank": ids([" "])[0] if whole.ids([" "]) == [[]] else [],
        "other_characters": others if others or rare_ones_differ(ids, whole.ids) else None,
    }
    (folder / TOKIE_DETAILS).write_text(json.dumps(details))
    return True
