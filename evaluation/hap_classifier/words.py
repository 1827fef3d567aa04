"""Words in texts: whole words where a language writes spaces, else parts of the text; and profanity labels from word lists."""

import re
from collections.abc import Iterable
from pathlib import Path

from kdnas.errors import UsageError
from kdnas.evaluation.hap_classifier.sets import LABELS
from kdnas.evaluation.rows import Split
from kdnas.text.lines import json_rows

# Languages that write words without spaces, or attach particles to them: a term counts anywhere in the text.
UNSPACED = ("ja", "ko", "th", "zh")
PROFANITY = LABELS.index("profanity")


def pattern_of(terms: Iterable[str], language: str) -> re.Pattern[str]:
    """A pattern that finds any of the terms, the longest first, in any case; whole words unless the language is `UNSPACED`."""
    joined = "|".join(re.escape(term) for term in sorted({*terms}, key=lambda term: (-len(term), term)))
    return re.compile(joined if language in UNSPACED else rf"(?<!\w)(?:{joined})(?!\w)", re.IGNORECASE)


def read_word_lists(file: Path) -> dict[str, re.Pattern[str]]:
    """The terms of a file by language, as patterns.

    Raises:
        UsageError: a row has no `lang` or no `term`, or the file is empty.
    """
    terms: dict[str, list[str]] = {}
    for number, row in json_rows(file, f"word_lists {file}"):
        code, term = row.get("lang"), row.get("term")
        if not isinstance(code, str) or not isinstance(term, str) or not term.strip():
            raise UsageError(f"word_lists {file}: line {number} needs the strings `lang` and `term`")
        terms.setdefault(code, []).append(term.strip())
    if not terms:
        raise UsageError(f"word_lists {file}: the file is empty; give JSON lines with `lang` and `term`")
    return {code: pattern_of(words, code) for code, words in terms.items()}


def label_profanity(split: Split, lists: dict[str, re.Pattern[str]]) -> tuple[Split, int]:
    """The rows with profanity from word lists where it is unknown: 1 if the text has a listed term, else 0.

    Returns:
        The rows, and how many got a label. Rows in languages without a list, and known labels, are unchanged.
    """
    labels, given = list(split.labels), 0
    for row, (text, code) in enumerate(zip(split.texts, split.languages, strict=True)):
        if labels[row][PROFANITY] is None and code in lists:
            found = float(lists[code].search(text) is not None)
            labels[row] = (*labels[row][:PROFANITY], found, *labels[row][PROFANITY + 1 :])
            given += 1
    return Split(split.texts, labels, split.languages, split.groups), given
