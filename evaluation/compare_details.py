"""Detail tables of a comparison: different settings, the teacher against chance, and all metrics by language."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from kdnas.evaluation.averages import OVER_LANGUAGES, OVER_ROWS
from kdnas.evaluation.chance import corrected_retention
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
    """For each task with several languages: the main metric with its retention in each language, and a table of all metrics."""
    tables = []
    for task in dict.fromkeys(task for model in models for task in model.cells):
        cells = [(model.name, model.cells[task]) for model in models if task in model.cells]
        languages = sorted({language for _, cell in cells for language in cell.by_language})
        if len(languages) > 1:
            around = (models[0].name, models[0].cells.get(task))
            tables += [_retention_table(task, cells, languages, *around), _metrics_table(task, cells, languages)]
    return tables


def _retention_table(
    task: str, cells: Sequence[tuple[str, Cell]], languages: Sequence[str], teacher: str, whole: Cell | None
) -> Table:
    """One row for each language, one for their mean, one for all rows together."""
    metric = cells[0][1].metric
    reference: Mapping[str, float] = {} if whole is None else _parts(whole, metric)
    chances: dict[str, float] = {} if whole is None else dict(whole.chance_by_language)
    if whole is not None and whole.chance is not None:
        chances[OVER_LANGUAGES] = whole.chance
    rows = []
    for part in (*languages, OVER_LANGUAGES, OVER_ROWS):
        chance = chances.get(part)
        row = [part, "" if chance is None else f"{chance:.1f}"]
        for _, cell in cells:
            points = _parts(cell, metric).get(part)
            of_teacher = None if cell is whole else reference.get(part)
            row.append("" if points is None else with_retention(f"{points:.1f}", points, of_teacher, chance))
        rows.append(row)
    taught = sorted({code for _, cell in cells for code in cell.settings.get("taught", ())})
    note = (
        f"Points of {metric.replace('_', ' ')}, means over the seeds; in brackets the retention relative to {teacher}, plain and "
        "above chance. The headline score is the unweighted mean over the languages."
    )
    note += f" Taught: {' or '.join(taught)}." if taught else ""
    return Table(f"{task} by language", ["language", "chance", *(name for name, _ in cells)], rows, note)


def _parts(cell: Cell, metric: str) -> dict[str, float]:
    """Points of the metric in each language, their mean, and over all rows, as far as the cell has them."""
    points = {language: scores[metric] for language, scores in cell.by_language.items()}
    points[OVER_LANGUAGES] = mean(points.values()) if points else cell.mean
    return points | ({OVER_ROWS: cell.pooled[metric]} if metric in cell.pooled else {})


def with_retention(shown: str, points: float, whole: float | None, chance: float | None) -> str:
    """Points as text, and in brackets the retention, plain and above chance, as far as they are known.

    Args:
        shown: the text.
        points: the points.
        whole: points of the teacher; None for the teacher itself.
        chance: points of always predicting the most frequent label.
    """
    kept = [percent(points / whole)] if whole is not None and whole > 0 else []
    corrected = None if whole is None or chance is None else corrected_retention(whole, points, chance)
    kept += [] if corrected is None else [f"{percent(corrected)} above chance"]
    return shown + (f" ({', '.join(kept)})" if kept else "")


def percent(value: float | None) -> str:
    """A fraction in percent; empty for None."""
    return "" if value is None else f"{100 * value:.1f} %"


def _metrics_table(task: str, cells: Sequence[tuple[str, Cell]], languages: Sequence[str]) -> Table:
    """All metrics of each model in each language, their mean over languages, and over all rows."""
    rows = [
        _language_row(f"{name}, {metric.replace('_', ' ')}", cell, metric, languages)
        for name, cell in cells
        for metric in _metrics(cell)
    ]
    head = ["model, metric", *languages, OVER_LANGUAGES, OVER_ROWS]
    return Table(f"{task}, all metrics by language", head, rows, "Points, means over the seeds.")


def _metrics(cell: Cell) -> list[str]:
    """Metrics that the cell has by language, its main metric first."""
    return list(dict.fromkeys([cell.metric, *(name for scores in cell.by_language.values() for name in scores)]))


def _language_row(name: str, cell: Cell, metric: str, languages: Sequence[str]) -> list[str]:
    values = {language: scores[metric] for language, scores in cell.by_language.items()}
    shown = [f"{values[language]:.1f}" if language in values else "" for language in languages]
    pooled = f"{cell.pooled[metric]:.1f}" if metric in cell.pooled else ""
    return [name, *shown, f"{mean(values.values()):.1f}" if values else "", pooled]
