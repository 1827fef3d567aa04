"""Output of `kdnas suites`: a table of the runs, and one of all metrics by language for each task with several."""

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from rich.table import Table

from kdnas.evaluation.averages import OVER_LANGUAGES, OVER_ROWS
from kdnas.store.progress import say, say_table


def show_runs(results: Sequence[Mapping[str, Any]]) -> None:
    """Print the mean and standard deviation over the seeds of each task, the scores by language, and notes on its data.

    Args:
        results: content of `result.json` of each run.
    """
    table = Table("task", "metric", "score of", "mean", "sd", "chance", "seeds", "learning rate")
    by_task: dict[str, list[Mapping[str, Any]]] = {}
    for result in results:
        by_task.setdefault(str(result["task"]), []).append(result)
    for task, runs in by_task.items():
        scores = [100 * run["score"] for run in runs]
        spread = f"{stdev(scores):.2f}" if len(scores) > 1 else ""
        chance = "" if runs[0]["chance"] is None else f"{100 * runs[0]['chance']:.2f}"
        about = (task, runs[0]["metric"], runs[0]["averaging"])
        rate = f"{runs[0]['learning_rate']:g}"
        table.add_row(*about, f"{mean(scores):.2f}", spread, chance, str(len(scores)), rate)
    say_table(table)
    for task, runs in by_task.items():
        if runs[0]["averaging"] == OVER_LANGUAGES:
            say(f"{task} by language (taught: {', '.join(runs[0]['taught'])}):")
            say_table(language_table(runs))
    for task, runs in by_task.items():
        if runs[0]["notes"]:
            say(f"{task}: {'; '.join(runs[0]['notes'])}")


def language_table(runs: Sequence[Mapping[str, Any]]) -> Table:
    """All metrics of a task, in points: a row for each language, the mean over languages, and all rows."""
    scored = [next(iter(run["engines"].values())) for run in runs]
    parts = {language: [one["by_language"][language] for one in scored] for language in scored[0]["by_language"]}
    parts |= {
        OVER_LANGUAGES: [one["language_means"] for one in scored],
        OVER_ROWS: [one["scores"] for one in scored],
    }
    metrics = list(dict.fromkeys([runs[0]["metric"], *scored[0]["scores"]]))
    table = Table("", *(metric.replace("_", " ") for metric in metrics))
    for name, values in parts.items():
        table.add_row(name, *(f"{100 * mean(one[metric] for one in values):.2f}" for metric in metrics))
    return table
