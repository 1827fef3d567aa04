"""Sentences of a text, as ranges of code points."""

import re
from collections.abc import Iterator

MAX_CHARACTERS = 2000  # a longer sentence is cut at a space, so that memory stays bounded
# The end of a sentence: marks and closing quotes before white space; marks of scripts without spaces; a line end.
_END = re.compile(
    r"[.!?\u2026]+[\"'\u201d\u2019\u00bb)\]]*(?=\s)|[\u3002\uff01\uff1f\u061f\u06d4\u0964\u0965]+[\"\u201d\u2019\u00bb\u300d\u300f\uff09]*|\n"
)
_WORD = re.compile(r"[\w.]+\Z")
_ABBREVIATIONS = frozenset({
    "mr", "mrs", "ms", "dr", "prof", "sr", "jr", "st", "vs", "etc", "e.g", "i.e", "al", "fig", "no", "vol", "pp", "inc", "ltd",
    "co", "u.s", "u.k", "jan", "feb", "mar", "apr", "jun", "jul", "aug", "sep", "sept", "oct", "nov", "dec",
})  # fmt: skip


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Start and end of each sentence in code points, in order, without white space around it; blank parts have none."""
    found: list[tuple[int, int]] = []
    start = 0
    for match in _END.finditer(text):
        if match.group().startswith(".") and _continues(text, start, match):
            continue
        found += _cut(text, start, match.end())
        start = match.end()
    return [*found, *_cut(text, start, len(text))]


def _continues(text: str, start: int, match: re.Match[str]) -> bool:
    """Whether the full stop belongs to an abbreviation or an initial, or the next word starts in lower case."""
    after = text[match.end() : match.end() + 40].lstrip()
    if after[:1].islower():
        return True
    word = _WORD.search(text[max(start, match.start() - 12) : match.start()])
    if word is None or len(match.group()) > 1:
        return False
    return (len(word[0]) == 1 and word[0].isalpha()) or word[0].lower() in _ABBREVIATIONS


def _cut(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    while end - start > MAX_CHARACTERS:
        space = text.rfind(" ", start + 1, start + MAX_CHARACTERS)
        edge = space if space > 0 else start + MAX_CHARACTERS
        yield start, edge
        start = edge + 1 if space > 0 else edge
    if end > start:
        yield start, end
