"""Copies of training texts in which the name of one group is replaced by that of another, with the same labels.

A classifier that has mostly seen some groups in hateful texts calls their mere mention hateful. With swapped copies each label
comes with many groups (Dixon et al. 2018 add neutral texts for the same purpose; Garg et al. 2019 swap terms).
"""

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path

import numpy as np

from kdnas.evaluation.hap_classifier.words import pattern_of
from kdnas.evaluation.rows import Split
from kdnas.evaluation.tasks import position_of

FILE = Path(__file__).with_name("group_terms.json")


@cache
def group_terms() -> dict[str, list[list[str]]]:
    """Lists of interchangeable names of groups by language."""
    data = json.loads(FILE.read_text(encoding="utf-8"))
    return {code: lists for code, lists in data.items() if code != "note"}


def swapped(text: str, language: str, seed: int) -> str | None:
    """The text with each name of a group replaced by another one of the same list; None if it has none.

    All mentions of one group in the text get the same new name.

    Args:
        text: the text.
        language: code of its language.
        seed: with the text it decides the new names.
    """
    rng = np.random.default_rng(int(position_of(text, seed) * 2**32))
    for names in group_terms().get(language, []):
        pattern = pattern_of(names, language)
        if pattern.search(text) is None:
            continue
        lowered = [name.lower() for name in names]
        old = {found.lower() for found in pattern.findall(text)}
        free = [name for name in names if name.lower() not in old]
        chosen = rng.permutation(len(free))[: len(old)]
        if len(chosen) < len(old):
            return None
        order = sorted(old, key=lowered.index)
        new = {name: free[int(index)] for name, index in zip(order, chosen, strict=True)}
        return pattern.sub(partial(_renamed, new), text)
    return None


def _renamed(new: Mapping[str, str], found: re.Match[str]) -> str:
    return new[found[0].lower()]


def with_swapped_copies(split: Split, copies: int, seed: int) -> tuple[Split, int]:
    """The rows, followed by the swapped copies of those that name a group.

    Args:
        split: train rows.
        copies: copies of each such row.
        seed: seed of the new names.

    Returns:
        The rows with the copies, and the number of copies.
    """
    rows: list[int] = []
    texts: list[str] = []
    for number in range(copies):
        for row, (text, code) in enumerate(zip(split.texts, split.languages, strict=True)):
            if (copy := swapped(text, code, seed + number)) is not None:
                rows.append(row)
                texts.append(copy)
    chosen: Sequence[int] = rows
    found = split.rows(chosen)
    return split.joined(Split(texts, found.labels, found.languages, found.groups)), len(rows)
