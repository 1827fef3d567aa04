"""Rows of one split that also occur in another.

Two inputs are the same if all their characters are, up to white space; case counts. A row occurs in another split in any
language: "Real Madrid" is a whole row of PAN-X in many languages, with the same tags. Rows of the same language are counted too.

Other definitions give other numbers. Of the 14,000 test rows of PAN-X in 14 languages, 1,324 occur in train, 1,273 of them in
their own language; 1,207 are left if a tenth of train was cut off as dev before and case does not count. Of the 30,211 test rows
of AfriSenti in the 12 languages with train rows, 771 occur in train, all in their own language; 772 if case does not count and
white space does. Rows of dev must not occur in test either, so the rows are compared before dev is cut off.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from kdnas.evaluation.rows import Split


@dataclass(frozen=True)
class Overlap:
    """What two splits have in common.

    Args:
        kept: the rows of the first split whose input is not in the other split, in any language.
        seen: number of rows of the other split whose input is in the first, in any language.
        seen_in_language: number of these whose input is in the first in the same language.
    """

    kept: Split
    seen: int
    seen_in_language: int


def form_of(text: Any) -> tuple[str, ...]:
    """The texts of an input with single spaces; inputs with equal forms count as the same.

    Args:
        text: a text, a pair of texts or a list of words.
    """
    parts: Iterable[str] = (text,) if isinstance(text, str) else text if isinstance(text, tuple) else (" ".join(text),)
    return tuple(" ".join(part.split()) for part in parts)


def without(split: Split, other: Split) -> Overlap:
    """The rows of `split` without those whose input is in `other`."""
    mine, theirs = ([form_of(text) for text in one.texts] for one in (split, other))
    known, seen = set(theirs), set(mine)
    kept = [row for row, form in enumerate(mine) if form not in known]
    in_language = set(zip(_languages(split), mine, strict=True))
    same = sum(pair in in_language for pair in zip(_languages(other), theirs, strict=True))
    return Overlap(split.rows(kept), sum(form in seen for form in theirs), same)


def _languages(split: Split) -> list[str]:
    return split.languages or [""] * len(split)
