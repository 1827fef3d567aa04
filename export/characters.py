"""Characters that two tokenizer libraries treat differently: most are of a newer version of Unicode than one of them knows."""

import re
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator

# General categories: unassigned, private use, control. tokie keeps the control character U+007F in short texts alone.
RARE = ("Cn", "Co", "Cc")
BLOCK = 64  # characters that are compared in one text
SAMPLED = 100  # one of so many unassigned and private characters is compared
BEYOND = "\U00010000"  # first character outside the basic plane

Encode = Callable[[list[str]], list[list[int]]]


class Characters:
    """A set of characters, with all unassigned ones, those of private use, and control characters but for space.

    Args:
        others: the other characters.
    """

    def __init__(self, others: str) -> None:
        plane = [chr(point) for point in range(ord(BEYOND)) if _is_rare(chr(point))]
        low = {character for character in others if character < BEYOND}.union(plane)
        self._low = re.compile(f"[{''.join(_ranges(sorted(low)))}]")
        self._beyond = re.compile(f"[{BEYOND}-{chr(sys.maxunicode)}]")
        self._high = frozenset(character for character in others if character >= BEYOND)

    def occur_in(self, text: str) -> bool:
        """Whether a text has any of the characters."""
        if self._low.search(text):
            return True
        if text.isascii():
            return False
        return any(one in self._high or _is_rare(one) for one in self._beyond.findall(text))


def differing_characters(one: Encode, other: Encode) -> str:
    """Characters that two encoders treat differently, alone or within a word, without those that `Characters` has anyway.

    Args:
        one: texts to token ids.
        other: texts to token ids.
    """
    points = (chr(point) for point in range(1, sys.maxunicode + 1) if not 0xD800 <= point < 0xE000)
    characters = [character for character in points if not _is_rare(character)]
    blocks = [characters[start : start + BLOCK] for start in range(0, len(characters), BLOCK)]
    suspect = [found for block in _unequal(blocks, one, other) for found in block]
    return "".join(found for [found] in _unequal([[character] for character in suspect], one, other))


def rare_ones_differ(one: Encode, other: Encode) -> bool:
    """Whether two encoders treat rare characters differently: controls, and a sample of the unassigned and private ones."""
    points = (chr(point) for point in range(1, sys.maxunicode + 1) if not 0xD800 <= point < 0xE000)
    rare = [character for character in points if _is_rare(character)]
    controls = [character for character in rare if unicodedata.category(character) == "Cc"]
    blocks = [[character] for character in [*controls, *rare[::SAMPLED]]]
    return any(_unequal(blocks, one, other))


def _unequal(blocks: list[list[str]], one: Encode, other: Encode) -> Iterator[list[str]]:
    texts = [" ".join(f"{character} b{character}c" for character in block) for block in blocks]
    rows = zip(one(texts), other(texts), strict=True)
    return (block for block, (ours, theirs) in zip(blocks, rows, strict=True) if ours != theirs)


def _is_rare(character: str) -> bool:
    return unicodedata.category(character) in RARE and not character.isspace()


def _ranges(characters: Iterable[str]) -> Iterator[str]:
    """Ranges of neighbouring characters, in the form of a regular expression's class."""
    first = last = ""
    for character in characters:
        if last and ord(character) == ord(last) + 1:
            last = character
            continue
        if first:
            yield f"{re.escape(first)}-{re.escape(last)}"
        first = last = character
    if first:
        yield f"{re.escape(first)}-{re.escape(last)}"
