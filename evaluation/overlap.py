"""Rows of one split that also stand in another."""

from collections.abc import Iterable
from typing import Any

from kdnas.evaluation.rows import Split


def form_of(text: Any) -> tuple[str, ...]:
    """The texts of an input with single spaces; inputs with equal forms count as the same.

    Args:
        text: a text, a pair of texts or a list of words.
    """
    parts: Iterable[str] = (text,) if isinstance(text, str) else text if isinstance(text, tuple) else (" ".join(text),)
    return tuple(" ".join(part.split()) for part in parts)


def without(split: Split, other: Split) -> tuple[Split, int]:
    """The rows of `split` whose input is not in `other`, and the number of rows of `other` whose input is in `split`."""
    mine, theirs = ([form_of(text) for text in one.texts] for one in (split, other))
    known, seen = set(theirs), set(mine)
    kept = [row for row, form in enumerate(mine) if form not in known]
    return split.rows(kept), sum(form in seen for form in theirs)
