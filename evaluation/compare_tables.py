"""Tables that compare models: all tasks, and the paper's Tables 4, 7 and 8 with our models above the paper's."""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from kdnas.evaluation.compare_details import (
    Table,
    chance_tables,
    language_tables,
    percent,
    settings_table,
    with_retention,
)
from kdnas.evaluation.compare_models import (
    Model,
    mean_above_chance,
    retention,
    tasks_near_chance,
    tuning_speed_up,
)
from kdnas.evaluation.compare_settings import Difference
from kdnas.evaluation.suites import SPECS, SUITES

PAPER_LEAVES_OUT = ("glue/cola",)  # tasks that the paper's means of GLUE leave out (Table 4)
# Tasks next to the paper's NER, which is the authors' own set; the suite has each in two variants and more.
NEXT_TO_NER = ("ner/panx-in-language", "ner/masakhaner-in-language")


def markdown(tables: Sequence[Table], title: str = "Downstream suites") -> str:
    """The tables as Markdown."""
    parts = [f"# {title}"]
    for table in tables:
        lines = [table.head, ["---", *["---:"] * (len(table.head) - 1)], *table.rows]
        parts += [f"## {table.title}", "\n".join(f"| {' | '.join(line)} |" for line in lines), table.note]
    return "\n\n".join(filter(None, parts)) + "\n"


def tables_of(models: Sequence[Model], paper: Mapping[str, Any], different: Sequence[Difference] = ()) -> list[Table]:
    """Tables of different settings, all tasks, chance and languages, then the paper's, each if our models have rows for it.

    Args:
        models: the compared models, the teacher first.
        paper: the paper's results.
        different: settings in which the models differ.
    """
    columns = {
        "Suites, as the paper's Table 4": ("suites", [_suite_means(model) for model in models]),
        "GLUE, as the paper's Table 7": ("glue", [_means(model) for model in models]),
        "XNLI by language, as the paper's Table 8": ("xnli", [_languages(model) for model in models]),
    }
    tables = [_tasks(models), *chance_tables(models[0]), *language_tables(models)]
    if different:
        tables.insert(0, settings_table(models, different))
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
        rows.append([_label(models, task), *(_points(teacher, model, task) for model in models)])
    rows += _mean_rows(models)
    rows.append(["fine-tuning, times as fast", *(_times(tuning_speed_up(teacher, model)) for model in models)])
    for engine in dict.fromkeys(engine for model in models for engine in model.speed_ups):
        rows.append([f"{engine}, times as fast", *(_spread(model.speed_ups.get(engine)) for model in models)])
    seeds = sorted({len(cell.scores) for model in models for cell in model.cells.values()})
    notes = {task: "; ".join(cell.notes) for model in models for task, cell in model.cells.items() if cell.notes}
    note = (
        f"Points, mean ± standard deviation over {' or '.join(map(str, seeds))} seeds; in brackets the retention relative to "
        f"{teacher.name}, and above chance what is kept of the points above chance. A task with several languages has the "
        "unweighted mean over them. Fine-tuning: total seconds over the tasks that both models have."
    )
    note += "".join(f" {task}: {lines}." for task, lines in notes.items())
    return Table("All tasks", ["task, metric", *(model.name for model in models)], rows, note)


def _label(models: Sequence[Model], task: str) -> str:
    """Task, metric, and over how many languages the score is a mean."""
    cells = [model.cells[task] for model in models if task in model.cells]
    languages = sorted({len(cell.by_language) for cell in cells})
    mean_over = f", mean over {' or '.join(map(str, languages))} languages" if languages[-1] > 1 else ""
    return f"{task}, {cells[0].metric.replace('_', ' ')}{mean_over}"


def _points(teacher: Model, model: Model, task: str) -> str:
    """Points, and in brackets the retention, plain and above chance."""
    cell, whole = model.cells.get(task), teacher.cells.get(task)
    if cell is None:
        return ""
    if whole is None or model is teacher:
        return str(cell)
    return with_retention(str(cell), cell.mean, whole.mean, whole.chance)


def _mean_rows(models: Sequence[Model]) -> list[list[str]]:
    """Rows of mean retention: over all tasks, as the paper's, and without tasks on which the teacher is near chance."""
    teacher = models[0]
    rows = [["mean retention", *(percent(retention(teacher, model)) for model in models)]]
    if any(task in model.cells for model in models for task in PAPER_LEAVES_OUT):
        kept_of_paper = [percent(retention(teacher, model, PAPER_LEAVES_OUT)) for model in models]
        rows.append([f"mean retention without {', '.join(PAPER_LEAVES_OUT)}, as in the paper", *kept_of_paper])
    near = tasks_near_chance(teacher)
    if near:
        rows.append(
            [
                "mean retention without tasks near chance",
                *(percent(retention(teacher, model, near)) for model in models),
            ]
        )
    if any(cell.chance is not None for cell in teacher.cells.values()):
        corrected = [percent(mean_above_chance(teacher, model, near)) for model in models]
        rows.append(["mean retention above chance, without tasks near chance", *corrected])
    return rows


def _suite_means(model: Model) -> dict[str, float]:
    """Mean over the tasks of each suite for which the model has results on all tasks; GLUE leaves out CoLA, as in the paper."""
    means = {}
    for suite in SUITES:
        tasks = [spec.name for spec in SPECS if spec.suite == suite and spec.name not in PAPER_LEAVES_OUT]
        tasks = list(NEXT_TO_NER) if suite == "ner" else tasks
        if all(task in model.cells for task in tasks):
            means[suite] = mean(model.cells[task].mean for task in tasks)
    return means


def _means(model: Model) -> dict[str, float]:
    return {task: cell.mean for task, cell in model.cells.items()}


def _languages(model: Model) -> dict[str, float]:
    if "xnli/xnli" not in model.cells:
        return {}
    cell = model.cells["xnli/xnli"]
    return {language: scores[cell.metric] for language, scores in cell.by_language.items()}


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _spread(times: tuple[float, float, float] | None) -> str:
    if times is None:
        return ""
    middle, low, high = times
    return f"{middle:.2f}" + (f" [{low:.2f}, {high:.2f}]" if low < high else "")
