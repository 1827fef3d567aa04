"""Decision thresholds of a classifier: `thresholds.json` in the model's folder, which its export keeps.

```
{"schema": 1,
 "wanted": {"precision": 0.9},                     or {"false_positive_rate": 0.01}: what the thresholds reach on dev rows
 "labels": {"hate": {
   "threshold": 0.62,                              a text has the label if its probability is at least this; null: not reachable
   "rows": 900, "positives": 130,                  dev rows for which the label is known
   "precision": 0.9, "recall": 0.5, "false_positive_rate": 0.01,   on these rows at the threshold; null without one
   "languages": {"en": {... the same fields ...}}  languages with enough dev rows of their own
 }},
 "calibration": {"hate": {"scale": 0.8, ...}}}      already part of the weights; for information
```
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdnas.errors import UsageError

THRESHOLDS = "thresholds.json"
SCHEMA = 1


@dataclass(frozen=True)
class Thresholds:
    """The content of `thresholds.json`.

    Args:
        wanted: `precision` or `false_positive_rate` that was asked for.
        labels: the entry of each label.
    """

    wanted: Mapping[str, float]
    labels: Mapping[str, Mapping[str, Any]]

    def of(self, label: str, language: str = "") -> float | None:
        """The threshold of a label; that of all languages if the language has none of its own.

        Args:
            label: the label.
            language: code of the language, also with a region or script, as in `de`, `de-AT`, `ZH_Hans`; empty if unknown.

        Returns:
            A probability; None if what was wanted is not reachable, so that no text should get the label.

        Raises:
            UsageError: the file has no such label.
        """
        if label not in self.labels:
            raise UsageError(f"{THRESHOLDS} has no label '{label}'; it has {', '.join(self.labels)}")
        entry = self.labels[label]
        found = entry.get("languages", {}).get(base_language(language), entry)["threshold"]
        return None if found is None else float(found)

    def limits(self, labels: Iterable[str], language: str = "", default: float = 0.5) -> list[float]:
        """The threshold of each label, to compare with: infinite if it is not reachable, `default` if the file lacks it."""
        found = [self.of(label, language) if label in self.labels else default for label in labels]
        return [math.inf if one is None else one for one in found]

    @property
    def languages(self) -> list[str]:
        """Sorted codes of the languages in which a label has a threshold of its own."""
        return sorted({code for entry in self.labels.values() for code in entry.get("languages", {})})

    def describe(self) -> str:
        """What the thresholds reach, as in `precision 0.9 on dev rows`."""
        return ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in self.wanted.items()) + " on dev rows"


def base_language(code: str) -> str:
    """The language of a code with a region or script, in lower case: `de` of `de-AT`."""
    return re.split("[-_]", code.strip().lower())[0]


def read_thresholds(folder: Path) -> Thresholds | None:
    """The thresholds of a model or an export; None if the folder has none.

    Raises:
        UsageError: the file is damaged, or of another schema.
    """
    file = folder / THRESHOLDS
    if not file.is_file():
        return None
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        schema, found = data["schema"], Thresholds(data["wanted"], data["labels"])
        values = [value for label in found.labels for value in _all(found.labels[label])]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{file}: not a file of thresholds ({type(error).__name__}: {error}); make the model again"
        ) from error
    if schema != SCHEMA:
        raise UsageError(f"{file}: schema {schema}, this version reads {SCHEMA}; make the model again")
    if wrong := [value for value in values if value is not None and not 0 <= value <= 1]:
        raise UsageError(f"{file}: a threshold is {wrong[0]}; allowed are 0 to 1 and null")
    return found


def _all(entry: Mapping[str, Any]) -> list[float | None]:
    return [entry["threshold"], *(one["threshold"] for one in entry.get("languages", {}).values())]
