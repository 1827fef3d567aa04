"""Converts a tokenizer.json to tokie's own form, with the characters that both libraries treat differently."""

import json
from pathlib import Path

from kdnas.export.characters import differing_characters
from kdnas.export.encoder import OTHER_CHARACTERS, TOKENIZER, TOKIE, TokenizersEncoder


def write_tokie(folder: Path) -> bool:
    """Write `tokenizer.tkz` and `other_characters.txt` beside `tokenizer.json`; returns False if tokie cannot read the tokenizer.

    Unigram is left out: on texts with new words tokie is no faster there than SentencePiece (results/export).
    """
    import tokie

    file = folder / TOKENIZER
    if json.loads(file.read_text())["model"].get("type") == "Unigram":
        return False
    try:
        tokenizer = tokie.Tokenizer.from_json(str(file))
    except Exception:  # the library raises it for kinds of tokenizers that it does not know
        return False
    whole = TokenizersEncoder(file)

    def ids(texts: list[str]) -> list[list[int]]:
        return [encoding.ids for encoding in tokenizer.encode_batch(texts, False)]

    tokenizer.save(str(folder / TOKIE))
    others = differing_characters(ids, whole.ids)
    (folder / OTHER_CHARACTERS).write_text("".join(f"{ord(character):x}\n" for character in others))
    return True
