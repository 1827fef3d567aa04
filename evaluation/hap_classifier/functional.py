"""A functional suite for classifiers of hate: short cases of one kind each, made from templates of this project.

The kinds are those in which classifiers of hate are known to fail (Röttger et al. 2021, HateCheck, Section 3): negation,
counter-speech, quotation, reclaimed words, profanity without hate, neutral and positive mentions of groups, spelling variants.
The templates are our own. Hateful ones are generic and name no slur.

The suite only measures. No training, no choice of a model and no threshold may read it (`tests/evaluation/hap_classifier/
test_functional.py` holds that).
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from kdnas.errors import UsageError

FILE = Path(__file__).with_name("functional.json")


@dataclass(frozen=True)
class Case:
    """One text with its label.

    Args:
        text: the text.
        hateful: whether it is hateful.
        functionality: name of its kind.
        language: code of its language.
        group: English name of the mentioned group; empty if none is mentioned.
    """

    text: str
    hateful: bool
    functionality: str
    language: str
    group: str


@cache
def cases(languages: tuple[str, ...] = ()) -> tuple[Case, ...]:
    """All cases in these languages, in the order of the file; all languages if none is given.

    Raises:
        UsageError: the suite has no cases in one of the languages.
    """
    data = json.loads(FILE.read_text(encoding="utf-8"))
    if unknown := [code for code in languages if code not in data["groups"]]:
        raise UsageError(f"languages has {', '.join(unknown)}; the functional suite has {', '.join(data['groups'])}")
    found: dict[tuple[str, str], Case] = {}
    for code in languages or tuple(data["groups"]):
        for one in data["functionalities"]:
            for template in one["templates"][code]:
                for group, text in _expanded(template, data["groups"][code]):
                    found[code, text] = Case(text, one["hateful"], one["name"], code, group)
    return tuple(found.values())


def _expanded(template: str, groups: Sequence[Sequence[str]]) -> list[tuple[str, str]]:
    """Group and text of each case of a template; one case without a group if it names none."""
    if not any(slot in template for slot in ("{G}", "{C}", "{S}")):
        return [("", template)]
    return [
        (name, template.replace("{G}", many).replace("{C}", many[0].upper() + many[1:]).replace("{S}", one))
        for name, many, one in groups
    ]


def functional_scores(said: Sequence[bool] | np.ndarray, suite: Sequence[Case]) -> dict[str, Any]:
    """Scores of decisions on the cases of one or several languages.

    Args:
        said: (N,) whether the classifier calls each case hateful.
        suite: the N cases.

    Returns:
        `cases`; `macro_f1` of hateful and other cases; `accuracy`; `found`, the fraction of hateful cases that are found;
        `false_positive_rate`; `by_functionality`, accuracy and number of cases of each; `by_group`, found and false-positive
        rate of the cases that mention each group; and `false_positive_gap` and `found_gap`, the largest difference between two
        groups.
    """
    decided = np.asarray(said, dtype=bool)
    truth = np.array([case.hateful for case in suite], dtype=bool)
    by_functionality = {}
    for name in dict.fromkeys(case.functionality for case in suite):
        rows = np.array([case.functionality == name for case in suite])
        right = decided[rows] == truth[rows]
        hateful = bool(truth[rows][0])
        by_functionality[name] = {"hateful": hateful, "accuracy": float(right.mean()), "cases": int(rows.sum())}
    by_group = {}
    for name in sorted({case.group for case in suite} - {""}):
        rows = np.array([case.group == name for case in suite])
        by_group[name] = {**_rates(decided[rows], truth[rows]), "cases": int(rows.sum())}
    return {
        "cases": len(suite),
        "macro_f1": _macro_f1(decided, truth),
        "accuracy": float((decided == truth).mean()),
        **_rates(decided, truth),
        "by_functionality": by_functionality,
        "by_group": by_group,
        "false_positive_gap": _gap([row["false_positive_rate"] for row in by_group.values()]),
        "found_gap": _gap([row["found"] for row in by_group.values()]),
    }


def _rates(said: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Fraction of the hateful cases and of the others that are called hateful; 0 without such cases."""
    found = float(said[truth].mean()) if truth.any() else 0.0
    return {"found": found, "false_positive_rate": float(said[~truth].mean()) if (~truth).any() else 0.0}


def _gap(rates: Sequence[float]) -> float:
    return max(rates, default=0.0) - min(rates, default=0.0)


def _macro_f1(said: np.ndarray, truth: np.ndarray) -> float:
    """Mean F1 of the two classes; 0 for a class that is neither present nor predicted."""
    scores = []
    for wanted in (False, True):
        right = int(((said == wanted) & (truth == wanted)).sum())
        total = int((said == wanted).sum() + (truth == wanted).sum())
        scores.append(2 * right / total if total else 0.0)
    return sum(scores) / 2


def case_counts(suite: Sequence[Case]) -> dict[str, int]:
    """Number of cases in each language."""
    return dict(Counter(case.language for case in suite))
