"""Output of `kdnas suites`: a table of the runs."""

from collections.abc import Sequence
from statistics import mean, stdev

from kdnas.store.artifact import Artifact
from kdnas.store.progress import say, say_table


def show_runs(artifacts: Sequence[Artifact]) -> None:
    """Print the mean and standard deviation over the seeds of each task, and the notes on its data."""
    from rich.table import Table

    table = Table("task", "metric", "mean", "sd", "seeds", "learning rate")
    notes: dict[str, list[str]] = {}
    for task in dict.fromkeys(str(artifact.results["task"]) for artifact in artifacts):
        runs = [artifact.results for artifact in artifacts if artifact.results["task"] == task]
        scores = [100 * run["score"] for run in runs]
        spread = f"{stdev(scores):.2f}" if len(scores) > 1 else ""
        rate = f"{runs[0]['learning_rate']:g}"
        table.add_row(task, runs[0]["metric"], f"{mean(scores):.2f}", spread, str(len(scores)), rate)
        notes[task] = runs[0]["notes"]
    say_table(table)
    for task, lines in notes.items():
        if lines:
            say(f"{task}: {'; '.join(lines)}")
