"""Detail tables of a comparison: different settings, the teacher against chance, and all metrics by language."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from kdnas.evaluation.compare_models import Cell, Model
from kdnas.evaluation.compare_settings import Difference


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


def settings_table(models: Sequence[Model], different: Sequence[Difference]) -> Table:
    """The settings in which the models differ."""
    rows = [[f"{one.setting} ({', '.join(one.tasks)})", *one.values] for one in different]
    note = "Scores under different settings are not comparable: a difference in scores may be one of settings."
    return Table("Different settings", ["setting", *(model.name for model in models)], rows, note)


def chance_tables(teacher: Model) -> list[Table]:
    """One table of the teacher's points above chance; none if no result has the score of chance."""
    known = {task: cell for task, cell in teacher.cells.items() if cell.chance is not None}
    if not known:
        return []
    rows = []
    for task, cell in known.items():
        deviation = "unknown" if cell.deviation is None else f"{cell.deviation:.1f}"
        verdict = {True: "yes", False: "no", None: "unknown"}[cell.near_chance]
        rows.append([task, f"{cell.chance:.1f}", f"{cell.mean:.1f}", deviation, verdict])
    absent = [task for task in teacher.cells if task not in known]
    note = (
        "Chance: the score of always predicting the most frequent test label. Near chance: the teacher is at most two standard "
        "deviations above it. The deviation is over the seeds; with one seed it is the binomial standard error of an accuracy "
        "or exact match, and unknown for other metrics."
    )
    note += f" Results without the score of chance: {', '.join(absent)}." if absent else ""
    head = ["task", "chance", teacher.name, "standard deviation", "near chance"]
    return [Table("Teacher against chance", head, rows, note)]


def language_tables(models: Sequence[Model]) -> list[Table]:
    """For each task with several languages, one table of all metrics by language, with their mean and the score of all rows."""
    tables = []
    for task in dict.fromkeys(task for model in models for task in model.cells):
        cells = {model.name: model.cells[task] for model in models if task in model.cells}
        languages = sorted({language for cell in cells.values() for language in cell.by_language})
        if len(languages) < 2:
            continue
        rows = [
            _language_row(f"{name}, {metric.replace('_', ' ')}", cell, metric, languages)
            for name, cell in cells.items()
            for metric in _metrics(cell)
        ]
        note = "Points, means over the seeds. The headline score is the unweighted mean over the languages."
        tables.append(
            Table(f"{task} by language", ["model, metric", *languages, "mean over languages", "all rows"], rows, note)
        )
    return tables


def _metrics(cell: Cell) -> list[str]:
    """Metrics that the cell has by language, its main metric first."""
    return list(dict.fromkeys([cell.metric, *(name for scores in cell.by_language.values() for name in scores)]))


def _language_row(name: str, cell: Cell, metric: str, languages: Sequence[str]) -> list[str]:
    values = {language: scores[metric] for language, scores in cell.by_language.items()}
    shown = [f"{values[language]:.1f}" if language in values else "" for language in languages]
    pooled = f"{cell.pooled[metric]:.1f}" if metric in cell.pooled else ""
    return [name, *shown, f"{mean(values.values()):.1f}" if values else "", pooled]
