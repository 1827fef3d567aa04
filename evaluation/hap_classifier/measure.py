"""Scores of a finished classifier on labelled rows, in the sets that it was trained on and outside of them, and its errors."""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

import numpy as np

from kdnas.evaluation.averages import scored
from kdnas.evaluation.hap_classifier.decide import binary_calibration_error
from kdnas.evaluation.hap_classifier.sets import LABELS
from kdnas.evaluation.kinds.multilabel import as_array
from kdnas.evaluation.metrics import at_threshold
from kdnas.evaluation.rows import Split
from kdnas.evaluation.tasks import Task
from kdnas.export.thresholds import Thresholds

ERRORS = 20  # examples of each kind of error that are kept


def split_scores(task: Task, split: Split, chances: np.ndarray, thresholds: Thresholds) -> dict[str, Any]:
    """Scores of a split.

    Args:
        task: the task.
        split: N rows of one or several sets.
        chances: (N, C) probabilities.
        thresholds: thresholds by label and language.

    Returns:
        `rows`; `by_set` and `by_language` with the scores of the kind, at a probability of a half; `macro_f1`, the unweighted
        mean over sets of each label's macro-F1; and `at_thresholds`, precision, recall and false-positive rate of each label and
        language at its threshold, and the calibration error.
    """
    if not len(split):
        return {"rows": 0, "by_set": {}, "by_language": {}, "macro_f1": {}, "at_thresholds": {}}
    found = scored(task, split, chances)
    return {
        "rows": len(split),
        "by_set": found["by_group"],
        "by_language": found["by_language"],
        "macro_f1": means_over_sets(found["by_group"]),
        "at_thresholds": _at_thresholds(split, chances, thresholds),
    }


def means_over_sets(by_set: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Mean macro-F1 of each label over the sets that know it."""
    names = {label: f"{label}_macro_f1" for label in LABELS}
    values = {label: [scores[name] for scores in by_set.values() if name in scores] for label, name in names.items()}
    return {label: mean(each) for label, each in values.items() if each}


def gap_points(inside: Mapping[str, Any], outside: Mapping[str, Any]) -> dict[str, float]:
    """Points by which the mean macro-F1 of each label is lower outside of the trained sets; empty without an outside."""
    means = inside["macro_f1"], outside["macro_f1"]
    return {label: round(100 * (means[0][label] - value), 2) for label, value in means[1].items() if label in means[0]}


def _at_thresholds(split: Split, chances: np.ndarray, thresholds: Thresholds) -> dict[str, Any]:
    truth, codes = as_array(split.labels), np.asarray(split.languages)
    found: dict[str, Any] = {}
    for index, label in enumerate(LABELS):
        found[label] = {}
        for code in sorted(set(split.languages)):
            rows = (truth[:, index] >= 0) & (codes == code)
            right, chance = truth[rows, index] >= 0.5, chances[rows, index]
            if not right.any() or right.all():
                continue
            threshold = thresholds.of(label, code)
            measured = {} if threshold is None else at_threshold(right, chance, threshold)
            error = binary_calibration_error(truth[rows, index], chance)
            found[label][code] = {"threshold": threshold, "rows": len(right), **measured, "calibration_error": error}
    return found


def worst_errors(split: Split, chances: np.ndarray, label: str = "hate", most: int = ERRORS) -> list[dict[str, Any]]:
    """The most confident errors on a split, false positives first, with the names of users and addresses taken out.

    Args:
        split: N rows.
        chances: (N, C) probabilities.
        label: label whose errors are listed.
        most: maximum number of false positives, and of false negatives.
    """
    if not len(split):
        return []
    index = LABELS.index(label)
    truth, chance = as_array(split.labels)[:, index], chances[:, index]
    rows: list[int] = []
    for wrong, order in (((truth >= 0) & (truth < 0.5), -chance), ((truth >= 0.5), chance)):
        rows += [row for row in np.argsort(order, kind="stable").tolist() if wrong[row]][:most]
    return [
        {
            "label": label, "wanted": int(truth[row]), "probability": round(float(chance[row]), 4), "set": split.groups[row],
            "language": split.languages[row], "text": anonymous(split.texts[row]),
        }
        for row in rows
        if (chance[row] >= 0.5) != (truth[row] >= 0.5)
    ]  # fmt: skip


def anonymous(text: str) -> str:
    """A text without names of users and web addresses, with single spaces."""
    words = ("@user" if word.startswith("@") else "http" if word.startswith("http") else word for word in text.split())
    return " ".join(words)


def shown_examples(errors: Sequence[Mapping[str, Any]], wanted: int, most: int = 4) -> list[str]:
    """Short forms of errors for a card: the text, with the middle of long words hidden, as code without backticks.

    Args:
        errors: what `worst_errors` returns.
        wanted: 0 for false positives, 1 for texts that were missed.
        most: maximum number of examples.
    """
    chosen = [one for one in errors if one["wanted"] == wanted][:most]
    return [
        f"{one['set']} ({one['language']}), P {one['probability']:.2f}: `{_veiled(one['text'][:120])}`"
        for one in chosen
    ]


def _veiled(text: str) -> str:
    """Every second letter of long words as a dot: readable enough to see the kind of error, and not to search for."""
    words = []
    for word in text.replace("`", "'").replace("|", "/").split():
        letters = [char if number % 2 == 0 or not char.isalpha() else "·" for number, char in enumerate(word)]
        words.append("".join(letters) if len(word) > 3 and not word.startswith("@") else word)
    return " ".join(words)
