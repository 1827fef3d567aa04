"""`kdnas hap-check`: the functional suite on any classifier, exported or in a Hugging Face folder. It only measures."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kdnas.errors import UsageError
from kdnas.evaluation.hap_classifier.functional import Case, cases, functional_scores
from kdnas.evaluation.hap_classifier.opened import Classifier, open_classifier
from kdnas.store.outcome import Outcome
from kdnas.store.progress import say_table

# Names of the label for hate, the most exact first.
HATE_NAMES = (
    "hate", "hateful", "hate_speech", "hate speech", "hatespeech", "hap", "toxic", "toxicity", "offensive", "offense", "abusive",
)  # fmt: skip
POSITIVE_NAMES = ("1", "label_1", "true", "yes", "positive")
DEFAULT_THRESHOLD = 0.5


def hate_label(labels: Sequence[str], label: str | None = None) -> str:
    """The label that means hate.

    Raises:
        UsageError: the model lacks the given label, or its labels do not show which one means hate.
    """
    if label is not None:
        if label not in labels:
            raise UsageError(f"label '{label}': the model has no such label; it has {', '.join(labels)}")
        return label
    for name in HATE_NAMES:
        if found := next((one for one in labels if one.lower() == name), None):
            return found
    if len(labels) == 2 and labels[1].lower() in POSITIVE_NAMES:
        return labels[1]
    raise UsageError(f"the labels {', '.join(labels)} do not show which one means hate; give --label")


def decisions(
    classifier: Classifier, suite: Sequence[Case], label: str, threshold: float | None
) -> tuple[np.ndarray, dict[str, float | None]]:
    """Whether each case gets the label, and the threshold of each language; a threshold of None means that no text does."""
    chances = classifier.chances([case.text for case in suite], label)
    used: dict[str, float | None] = {}
    for code in dict.fromkeys(case.language for case in suite):
        known = classifier.thresholds
        if threshold is not None:
            used[code] = threshold
        else:
            used[code] = known.of(label, code) if known is not None and label in known.labels else DEFAULT_THRESHOLD
    limits = np.array([np.inf if (limit := used[case.language]) is None else limit for case in suite])
    return chances >= limits, used


def check(
    classifier: Classifier, languages: tuple[str, ...] = (), label: str | None = None, threshold: float | None = None
) -> dict[str, Any]:
    """Scores on the functional suite (`kdnas.evaluation.hap_classifier.functional.functional_scores`) by language.

    Args:
        classifier: the model.
        languages: codes; empty for all of the suite.
        label: label that means hate; None finds it by its name.
        threshold: probability from which a text counts as hateful; None takes those of the model's folder, or 0.5.
    """
    suite, name = cases(languages), hate_label(classifier.labels, label)
    said, used = decisions(classifier, suite, name, threshold)
    rows = {code: [row for row, case in enumerate(suite) if case.language == code] for code in used}
    return {
        "label": name,
        "thresholds": used,
        "languages": {
            code: functional_scores(said[chosen], [suite[row] for row in chosen]) for code, chosen in rows.items()
        },
    }


def hap_check(
    model: str,
    languages: tuple[str, ...] = (),
    label: str | None = None,
    threshold: float | None = None,
    form: str | None = None,
    home: Path = Path("artifacts"),
) -> Outcome:
    """Measure a classifier of hate on the functional suite, and print the scores as tables and as one line of JSON.

    The suite has short cases made from templates: negation, counter-speech, quotation, reclaimed words, profanity without hate,
    neutral and positive mentions of groups, spelling variants. It has English, German, French and Portuguese cases.

    Args:
        model: folder of `kdnas export`, a Hugging Face folder of a classifier, an artifact or a hub id.
        languages: codes of the languages to measure; empty measures all of the suite.
        label: label of the model that means hate; null finds it by its name.
        threshold: probability from which a text counts as hateful; null takes the thresholds in the model's folder, or 0.5 if it
            has none.
        form: form of an export, for example `openvino-int8`; null takes the fastest.
        home: root folder of all artifacts.

    Raises:
        UsageError: the model is not a classifier of texts, the label is unknown, or the suite lacks a language.
    """
    if threshold is not None and not 0 <= threshold <= 1:
        raise UsageError(f"threshold is {threshold}; allowed are 0 to 1")
    cases(languages)  # refuses an unknown language before the model is loaded
    found = check(open_classifier(model, form, home), languages, label, threshold)
    show(found)
    return Outcome(None, found, text=json.dumps(found))


def show(found: Mapping[str, Any]) -> None:
    """Print the scores of each language, functionality and group as tables."""
    from rich.table import Table

    languages = found["languages"]
    table = Table("functional suite, label " + found["label"], *languages)
    limits = ["none" if limit is None else f"{limit:.4f}" for limit in found["thresholds"].values()]
    table.add_row("threshold", *limits)
    for name in ("cases", "macro_f1", "accuracy", "found", "false_positive_rate", "false_positive_gap", "found_gap"):
        values = [one[name] for one in languages.values()]
        table.add_row(name.replace("_", " "), *(str(v) if name == "cases" else f"{v:.3f}" for v in values))
    for title, key, value in (
        ("accuracy: ", "by_functionality", "accuracy"),
        ("false positives: ", "by_group", "false_positive_rate"),
    ):
        for name in dict.fromkeys(name for one in languages.values() for name in one[key]):
            cells = [one[key].get(name) for one in languages.values()]
            hateful = " (hateful)" if key == "by_functionality" and any(c and c["hateful"] for c in cells) else ""
            table.add_row(f"{title}{name}{hateful}", *("" if c is None else f"{c[value]:.3f}" for c in cells))
    say_table(table)
