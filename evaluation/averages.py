"""Scores over all rows, in each language and in each group, and the headline score of a task.

The headline of a task with several languages is the unweighted mean over its languages, as benchmarks such as XNLI and XTREME
report it: otherwise the languages with the most rows decide.
"""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from kdnas.evaluation.rows import Split
from kdnas.evaluation.tasks import Task

OVER_LANGUAGES, OVER_ROWS = "mean over languages", "all rows"


def scored(task: Task, split: Split, predicted: Any) -> dict[str, Any]:
    """All metrics of predictions.

    Args:
        task: its kind, class names and positive class.
        split: N rows.
        predicted: what the kind's `predict` returns for them.

    Returns:
        `scores` over all rows; `by_language` and `by_group`, the scores of each language and group; and `language_means`, the
        unweighted means over the languages, empty if there are fewer than two.
    """
    from kdnas.evaluation.metric_modules import scores_of

    found: dict[str, Any] = {"scores": scores_of(task, split, predicted)}
    for name, values in (("by_language", split.languages), ("by_group", split.groups)):
        found[name] = {
            value: scores_of(task, split.rows(rows), _rows_of(predicted, rows))
            for value in sorted(set(values) - {""})
            if (rows := [index for index, other in enumerate(values) if other == value])
        }
    return found | {"language_means": language_means(found["by_language"])}


def language_means(by_language: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Unweighted mean of each metric over the languages; empty if there are fewer than two."""
    if len(by_language) < 2:
        return {}
    names = dict.fromkeys(name for scores in by_language.values() for name in scores)  # a language may lack a label
    return {name: mean(scores[name] for scores in by_language.values() if name in scores) for name in names}


def headline(found: Mapping[str, Any], metric: str) -> float:
    """The headline score of what `scored` returns: the mean over languages if there are several, else over all rows."""
    return float((found["language_means"] or found["scores"])[metric])


def averaging(found: Mapping[str, Any]) -> str:
    """What the headline score is: `mean over languages` or `all rows`."""
    return OVER_LANGUAGES if found["language_means"] else OVER_ROWS


def averaging_of(split: Split) -> str:
    """What the headline score of the rows of a split will be."""
    return OVER_LANGUAGES if len(set(split.languages) - {""}) > 1 else OVER_ROWS


def _rows_of(predicted: Any, rows: Sequence[int]) -> Any:
    return [predicted[index] for index in rows] if isinstance(predicted, list) else predicted[list(rows)]
