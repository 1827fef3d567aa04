"""Tables that compare models: all tasks, and the paper's Tables 4, 7 and 8 with our models above the paper's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean, stdev
from typing import Any

from kdnas.evaluation.suites import SPECS, SUITES

PAPER_LEAVES_OUT = ("glue/cola",)  # tasks that the paper's means of GLUE leave out (Table 4)


@dataclass(frozen=True)
class Cell:
    """Scores of one model on one task, in points (0 to 100).

    Args:
        scores: one score per seed.
        metric: metric of the task.
        by_language: mean over the seeds for each language; empty for a task with one language.
        seconds: mean seconds of fine-tuning.
        notes: notes on missing or left-out data.
        data: digest of the rows, and the numbers of train and test rows.
    """

    scores: tuple[float, ...]
    metric: str
    by_language: Mapping[str, float]
    seconds: float
    notes: tuple[str, ...]
    data: str

    @property
    def mean(self) -> float:
        return mean(self.scores)

    def __str__(self) -> str:
        spread = f" ± {stdev(self.scores):.1f}" if len(self.scores) > 1 else ""
        return f"{self.mean:.1f}{spread}"


@dataclass(frozen=True)
class Model:
    """A model with its scores and speed-ups.

    Args:
        name: name in the tables.
        architecture: architecture as `L4-H12-D576-F768-gelu`.
        cells: scores by task name.
        digest: digest of the model's files, as in the manifests.
        speed_ups: speed-up over the first model in PyTorch, by engine: median, 5th and 95th percentile; all three are equal if no
            rounds of both models were timed.
    """

    name: str
    architecture: str
    cells: Mapping[str, Cell]
    digest: str = ""
    speed_ups: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """A table of a report.

    Args:
        title: title of its section.
        head: head of each column.
        rows: cells of each row, its name first.
        note: text below the table.
    """

    title: str
    head: list[str]
    rows: list[list[str]]
    note: str = ""


def markdown(tables: Sequence[Table]) -> str:
    """The tables as Markdown."""
    parts = ["# Downstream suites"]
    for table in tables:
        lines = [table.head, ["---", *["---:"] * (len(table.head) - 1)], *table.rows]
        parts += [f"## {table.title}", "\n".join(f"| {' | '.join(line)} |" for line in lines), table.note]
    return "\n\n".join(filter(None, parts)) + "\n"


def tables_of(models: Sequence[Model], paper: Mapping[str, Any]) -> list[Table]:
    """A table of all tasks, and tables of suites, GLUE and XNLI by language if our models have results for them."""
    columns = {
        "Suites, as the paper's Table 4": ("suites", [_suite_means(model) for model in models]),
        "GLUE, as the paper's Table 7": ("glue", [_means(model) for model in models]),
        "XNLI by language, as the paper's Table 8": ("xnli", [_languages(model) for model in models]),
    }
    tables = [_tasks(models)]
    for title, (part, values) in columns.items():
        ours = {model.name: found for model, found in zip(models, values, strict=True) if found}
        names = [name for name in paper[part]["Teacher"] if name != "average"]
        if any(set(found) & set(names) for found in ours.values()):
            rows = [*ours.items(), *((f"paper: {name}", found) for name, found in paper[part].items())]
            shared = [name for name in names if all(name in found for _, found in rows)]
            note = (
                f"The last column is the mean of {', '.join(shared) or 'nothing'}, which all rows have. "
                f"{paper['source']}. Its models are students of XLM-R base, distilled on 7 million sentences."
            )
            lines = [_row(name, found, names, shared) for name, found in rows]
            tables.append(Table(title, ["", *names, "mean of shared"], lines, note))
    return tables


def _row(name: str, values: Mapping[str, float], columns: Sequence[str], shared: Sequence[str]) -> list[str]:
    """Points in each column, and the mean over the columns that all rows have."""
    shown = [f"{values[column]:.1f}" if column in values else "" for column in columns]
    return [name, *shown, f"{mean(values[column] for column in shared):.1f}" if shared else ""]


def _tasks(models: Sequence[Model]) -> Table:
    """Points with their standard deviation over seeds, retention relative to the first model, and notes on the data."""
    teacher = models[0]
    rows = []
    for task in dict.fromkeys(task for model in models for task in model.cells):
        metric = next(model.cells[task].metric for model in models if task in model.cells)
        shown = []
        for model in models:
            cell, whole = model.cells.get(task), teacher.cells.get(task)
            kept = cell and whole and model is not teacher and whole.mean > 0
            shown.append(
                f"{cell or ''}" + (f" ({100 * cell.mean / whole.mean:.1f} %)" if kept and cell and whole else "")
            )
        rows.append([f"{task}, {metric.replace('_', ' ')}", *shown])
    rows.append(["mean retention", *(_percent(retention(teacher, model)) for model in models)])
    if any(task in model.cells for model in models for task in PAPER_LEAVES_OUT):
        kept_of_paper = [_percent(retention(teacher, model, PAPER_LEAVES_OUT)) for model in models]
        rows.append([f"mean retention without {', '.join(PAPER_LEAVES_OUT)}, as in the paper", *kept_of_paper])
    rows.append(["fine-tuning, times as fast", *(_times(tuning_speed_up(teacher, model)) for model in models)])
    for engine in dict.fromkeys(engine for model in models for engine in model.speed_ups):
        rows.append([f"{engine}, times as fast", *(_spread(model.speed_ups.get(engine)) for model in models)])
    seeds = sorted({len(cell.scores) for model in models for cell in model.cells.values()})
    notes = {task: "; ".join(cell.notes) for model in models for task, cell in model.cells.items() if cell.notes}
    note = (
        f"Points, mean ± standard deviation over {' or '.join(map(str, seeds))} seeds; in brackets the retention relative to "
        f"{teacher.name}. Fine-tuning: total seconds over the tasks that both models have."
    )
    note += "".join(f" {task}: {lines}." for task, lines in notes.items())
    return Table("All tasks", ["task, metric", *(model.name for model in models)], rows, note)


def retention(teacher: Model, model: Model, without: Sequence[str] = ()) -> float | None:
    """Mean ratio of the model's points to the teacher's over their shared tasks, except `without`; None if no task is shared."""
    both = [task for task in teacher.cells if task in model.cells and task not in without]
    shared = [task for task in both if teacher.cells[task].mean > 0]
    return mean(model.cells[task].mean / teacher.cells[task].mean for task in shared) if shared else None


def tuning_speed_up(teacher: Model, model: Model) -> float | None:
    """Ratio of the teacher's fine-tuning time to the model's, over their shared tasks; None without shared tasks."""
    shared = [task for task in teacher.cells if task in model.cells]
    ours = sum(model.cells[task].seconds for task in shared)
    return sum(teacher.cells[task].seconds for task in shared) / ours if ours else None


def _suite_means(model: Model) -> dict[str, float]:
    """Mean over the tasks of each suite for which the model has results on all tasks; GLUE leaves out CoLA, as in the paper."""
    means = {}
    for suite in SUITES:
        tasks = [spec.name for spec in SPECS if spec.suite == suite and spec.name not in PAPER_LEAVES_OUT]
        if all(task in model.cells for task in tasks):
            means[suite] = mean(model.cells[task].mean for task in tasks)
    return means


def _means(model: Model) -> dict[str, float]:
    return {task: cell.mean for task, cell in model.cells.items()}


def _languages(model: Model) -> dict[str, float]:
    return dict(model.cells["xnli/xnli"].by_language) if "xnli/xnli" in model.cells else {}


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _spread(times: tuple[float, float, float] | None) -> str:
    if times is None:
        return ""
    middle, low, high = times
    return f"{middle:.2f}" + (f" [{low:.2f}, {high:.2f}]" if low < high else "")
