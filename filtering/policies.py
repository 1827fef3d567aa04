"""Which labels a run drops and from which score on: by the options, or by the thresholds that came with the model."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdnas.errors import UsageError
from kdnas.export.thresholds import THRESHOLDS, Thresholds, read_thresholds
from kdnas.filtering.decision import Policy
from kdnas.filtering.options import DecisionOptions
from kdnas.filtering.scoring import choose_labels

OPTION, DEFAULT = "option", "default"  # sources of thresholds, besides the file


def choose_policy(model: Path, labels: list[str], options: DecisionOptions) -> tuple[Policy, str]:
    """The policy of a run, and where its thresholds come from: `option`, `default` or a description of the model's file.

    Args:
        model: folder of the exported model.
        labels: labels of the model.
        options: labels and thresholds that are given.

    Raises:
        UsageError: a label is unknown, or has no threshold.
    """
    known = read_thresholds(model)
    if options.threshold is not None or known is None:
        in_file = [label for label in labels if known is not None and label in known.labels]
        chosen = choose_labels(labels, str(model), options.label or tuple(in_file) or None)
        return _given(chosen, options), OPTION if options.threshold is not None else DEFAULT
    _require_probability(options)
    chosen = _labels(model, labels, known, options.label)
    languages = {code: tuple(known.limits(chosen, code)) for code in known.languages}
    limits = tuple(known.limits(chosen))
    policy = Policy(tuple(chosen), limits, options.document_score, options.sentence_threshold, languages)
    return policy, f"{THRESHOLDS} ({known.describe()})"


def recorded_policy(config: Mapping[str, Any], options: DecisionOptions) -> tuple[Policy, str]:
    """The policy that splits a recorded run again: with thresholds of the options, or else with those of the run.

    Args:
        config: settings of the run.
        options: labels and thresholds that are given; the labels are among those of the run.

    Raises:
        UsageError: there are several thresholds, but not as many as labels.
    """
    chosen = list(options.label or config["labels"])
    if options.threshold is not None:
        return _given(chosen, options), OPTION
    if config["threshold_source"] not in (OPTION, DEFAULT):
        _require_probability(options)
    columns = [config["labels"].index(label) for label in chosen]

    def limits(values: list[float | None]) -> tuple[float, ...]:
        picked = [values[column] for column in columns]
        return tuple(math.inf if one is None else one for one in picked)

    languages = {code: limits(values) for code, values in config["language_thresholds"].items()}
    around = (options.document_score, options.sentence_threshold)
    return Policy(tuple(chosen), limits(config["threshold"]), *around, languages), config["threshold_source"]


def policy_config(policy: Policy, source: str) -> dict[str, Any]:
    """A policy as settings of a run; a threshold that is not reachable is null."""
    return {
        "labels": list(policy.labels),
        "threshold": _numbers(policy.thresholds),
        "language_thresholds": {code: _numbers(limits) for code, limits in policy.by_language.items()},
        "threshold_source": source,
        "document_score": policy.document_score,
        "sentence_threshold": policy.sentence_threshold,
    }


def policy_line(policy: Policy, source: str) -> str:
    """The policy in one line, as in `drops hate from 0.62 (de 0.71), abuse from 0.4; thresholds: option`."""
    parts = []
    for index, label in enumerate(policy.labels):
        limit = policy.thresholds[index]
        own = {code: limits[index] for code, limits in policy.by_language.items() if limits[index] != limit}
        languages = ", ".join(f"{code} {_shown(value)}" for code, value in own.items())
        parts.append(f"{label} from {_shown(limit)}" + (f" ({languages})" if languages else ""))
    return f"drops {', '.join(parts)}; thresholds: {source}"


def _given(chosen: list[str], options: DecisionOptions) -> Policy:
    limits = tuple(options.thresholds(chosen))
    return Policy(tuple(chosen), limits, options.document_score, options.sentence_threshold)


def _labels(model: Path, labels: list[str], known: Thresholds, given: tuple[str, ...] | None) -> list[str]:
    """The given labels, or those of the file that a text can reach."""
    if given is None:
        reachable = [label for label in labels if label in known.labels and _reachable(known, label)]
        if not reachable:
            raise UsageError(
                f"model '{model}': no label has a threshold in its {THRESHOLDS}; give --label and --threshold"
            )
        return reachable
    for label in choose_labels(labels, str(model), given):
        if label not in known.labels or not _reachable(known, label):
            raise UsageError(
                f"label '{label}': {THRESHOLDS} of model '{model}' has no threshold for it ({known.describe()} was not "
                "reached, or the label is missing); give --threshold"
            )
    return choose_labels(labels, str(model), given)


def _reachable(known: Thresholds, label: str) -> bool:
    return any(known.of(label, code) is not None for code in ("", *known.languages))


def _require_probability(options: DecisionOptions) -> None:
    if options.document_score == "fraction":
        raise UsageError(
            f"document_score is fraction, and {THRESHOLDS} of the model is for probabilities; give --threshold"
        )


def _numbers(limits: tuple[float, ...]) -> list[float | None]:
    return [None if math.isinf(one) else one for one in limits]


def _shown(limit: float) -> str:
    return "never" if math.isinf(limit) else f"{limit:g}"
