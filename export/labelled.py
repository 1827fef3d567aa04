"""Labelled texts on which an export is judged: JSON lines with `text`, `label` and, where there are several, `language`."""

import gzip
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdnas.errors import UsageError

FORM = 'lines like {"text": "...", "label": "name or number", "language": "de"} (the language may be left out)'
LEAST = 100


@dataclass(frozen=True)
class Labelled:
    """N texts, their class numbers and their languages ("" where none is given)."""

    texts: list[str]
    labels: list[int]
    languages: list[str]


def read_labelled(path: Path, names: list[str], most: int) -> Labelled:
    """Read the first `most` rows of each language.

    Args:
        path: a .jsonl or .jsonl.gz file.
        names: the model's class names; a label is one of them, or its number.
        most: rows a language, at most.

    Raises:
        UsageError: no such file, a row of another form, a label that the model does not have, or fewer than 100 rows.
    """
    found = Labelled([], [], [])
    seen: Counter[str] = Counter()
    numbers = {name: place for place, name in enumerate(names)}
    numbers = {str(place): place for place in range(len(names))} | numbers
    for number, row in _rows(path):
        text, label, language = row.get("text"), row.get("label"), row.get("language") or ""
        if not isinstance(text, str) or label is None or not isinstance(language, str):
            raise UsageError(f"{path}: line {number} has no text or no label; wanted are {FORM}")
        if str(label) not in numbers:
            raise UsageError(f"{path}: line {number} has label '{label}'; the model's are {', '.join(names)}")
        seen[language] += 1
        if seen[language] <= most:
            found.texts.append(text)
            found.labels.append(numbers[str(label)])
            found.languages.append(language)
    if len(found.texts) < LEAST:
        raise UsageError(f"{path}: {len(found.texts)} rows; at least {LEAST} are needed to tell what int8 loses")
    return found


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and row of each line that is not empty."""
    if not path.name.endswith((".jsonl", ".jsonl.gz")) or not path.is_file():
        raise UsageError(f"{path}: no such .jsonl or .jsonl.gz file; wanted are {FORM}")
    try:
        with (gzip.open if path.name.endswith(".gz") else open)(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise UsageError(f"{path}: line {number} is not an object; wanted are {FORM}")
                    yield number, row
    except (OSError, EOFError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read ({error}); wanted are {FORM}") from error
