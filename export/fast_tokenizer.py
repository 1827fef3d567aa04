"""Chooses a library that tokenises faster than `tokenizers`, if it gives the same ids."""

import json
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from kdnas.export.encoder import SENTENCEPIECE, TOKENIZER, TOKIE, TOKIE_DETAILS, TokenizersEncoder, read_encoder
from kdnas.export.sentencepiece_form import write_sentencepiece
from kdnas.export.tokie_form import write_tokie

COMPARED = 20_000  # texts; takes one or two seconds
TOLERATED = 1e-4
# Texts that expose differences of tokenizers in edge cases.
PROBES = (
    "",
    " ",
    "\t",
    "\u3000 \u200b",
    "\x07",
    "\u2581",
    "  two  spaces ",
    "tab\tand\nnew\r\nlines\u3000and\u00a0wide ones\u2028here",
    "ﬁne ｆｕｌｌ ½ ² ㎏ Ⅻ e\u0301",
    "soft\u00adhyphen zero\u200bwidth \u200djoiner\ufeff mark \x07 bell \x00 nil",
    "🙂 👩‍👩‍👧‍👦 🇧🇷 \U0010ffff \ue000",
    "漢字かな交じり文です。ภาษาไทย العربية हिन्दी",
    "x" * 3000,
    "ab " * 3000,
)
# The main file of each form, the function that writes it, and its other files; the first with equal ids is used.
WRITERS: dict[str, tuple[Callable[[Path], bool], tuple[str, ...]]] = {
    TOKIE: (write_tokie, (TOKIE_DETAILS,)),
    SENTENCEPIECE: (write_sentencepiece, ()),
}


def write_fast_tokenizer(folder: Path, texts: Iterable[str]) -> dict[str, Any] | None:
    """Write another form of `tokenizer.json` beside it, if a faster library then gives the same ids.

    It must agree on all edge cases and may differ on one in ten thousand of `texts`: if two ways to split a word have the same
    score, two libraries may choose differently (7 of 991,687 sentences in 185 languages with SentencePiece, results/export).

    Args:
        folder: holds `tokenizer.json`.
        texts: texts to compare; up to 20,000 of them are used.

    Returns:
        The name of the written `file`, and the numbers of `compared` and of `differ`ing texts; None if none was written.
    """
    compared = list(islice(texts, COMPARED))
    for name, (write, others) in WRITERS.items():
        if not write(folder):
            continue
        differ = _differing(folder, name, compared)
        if differ is not None and differ <= len(compared) * TOLERATED:
            return {"file": name, "compared": len(compared), "differ": differ}
        for file in (name, *others):
            (folder / file).unlink()
    return None


def _differing(folder: Path, name: str, compared: list[str]) -> int | None:
    """Number of texts with other ids; None if the special tokens or an edge case differ."""
    ours, theirs = read_encoder(folder, name), TokenizersEncoder(folder / TOKENIZER)
    special = [token["content"] for token in json.loads((folder / TOKENIZER).read_text())["added_tokens"]]
    odd = [
        *PROBES,
        *(text for name in special for text in (name, f"a{name}b", f"a {name} b", f"{name}{name} a {name}")),
    ]
    if (ours.prefix, ours.suffix) != (theirs.prefix, theirs.suffix) or ours.ids(odd) != theirs.ids(odd):
        return None
    return sum(one != other for one, other in zip(ours.ids(compared), theirs.ids(compared), strict=True))
