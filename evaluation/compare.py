"""`kdnas compare-suites`: compare models on the same data, next to the paper's results, in tables like its Tables 4, 7 and 8."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from kdnas.autodistil.family import Family
from kdnas.autodistil.page import write_family_page
from kdnas.errors import UsageError
from kdnas.evaluation.compare_models import Model, retention
from kdnas.evaluation.compare_page import write_suites_page
from kdnas.evaluation.compare_results import read_model
from kdnas.evaluation.compare_settings import check_settings
from kdnas.evaluation.compare_tables import markdown, tables_of
from kdnas.models.table import LatencyTable
from kdnas.store.artifact import Artifact
from kdnas.store.disk import disk_errors
from kdnas.store.outcome import Outcome
from kdnas.store.progress import say

FAMILY_PAGE = "family.html"
PAPER = Path(__file__).with_name("paper.json")


def compare_suites(
    models: tuple[str, ...],
    latency_table: Path | None = None,
    speeds: tuple[Path, ...] = (),
    output: Path | None = None,
    page: Path | None = None,
    family: Path | None = None,
    allow_different_settings: bool = False,
    home: Path = Path("artifacts"),
) -> Outcome:
    """Compare models on the tasks that `kdnas suites` scored. Retention is relative to the first model.

    Args:
        models: models as given to `kdnas suites`, or the first characters (at least eight) of the digests in their
            results; the teacher comes first.
        latency_table: folder of a finished latency table; adds the speed-ups of models whose architecture is in the table.
        speeds: folders that `kdnas speed` printed for these models and their teacher; adds the speed-up of each exported form.
        output: Markdown file to write; by default `suites.md` below `home`.
        page: HTML file to write, with the same tables and a plot; by default `suites.html` below `home`.
        family: folder that `kdnas autodistil` printed; its page is written again, as `family.html` below `home`, with the
            retention of those models that are members of the family.
        allow_different_settings: whether models are compared although they differ in data, languages, rows, epochs, learning
            rates, seeds, time budget, batch size or engine; the differences are then shown above the tables.
        home: root folder of all artifacts.

    Raises:
        UsageError: fewer than two models are given, a model has no results, results have different settings, or no model is
            a member of the family.
    """
    if len(models) < 2:
        raise UsageError(f"models: {len(models)} given; at least two are needed, the teacher first")
    opened = None if family is None else Family.load(family)
    found = [read_model(home, model) for model in models]
    different = check_settings(found, allow_different_settings)
    kept = {} if opened is None else member_retention(opened, found)
    if latency_table is not None:
        found = of_table(found, latency_table)
    for measured in speeds:
        found = of_rounds(found, measured)
    paper = json.loads(PAPER.read_text())
    tables = tables_of(found, paper, different)
    text = markdown(tables)
    file = output or home / "suites.md"
    with disk_errors(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    say(text)
    say(f"page: {write_suites_page(found, tables, paper, page or home / 'suites.html', bool(different))}")
    if opened is not None:
        write_family_page(home / FAMILY_PAGE, list(opened.rows.values()), opened.teacher.spec, retention=kept)
        say(f"page of the family: {home / FAMILY_PAGE}")
    return Outcome(file, {"models": [model.name for model in found]})


def member_retention(family: Family, models: Sequence[Model]) -> dict[str, float]:
    """Mean retention of those models that are members of a family, by member; the first model is the teacher.

    Raises:
        UsageError: no model is a member, or none of the members shares a task with the teacher.
    """
    names = {arch.name: str(arch) for arch in family.members}
    members = [model for model in models[1:] if model.architecture in names]
    if not members:
        others = ", ".join(f"{model.name} ({model.architecture})" for model in models[1:])
        raise UsageError(
            f"family: none of the models is a member of {family.path}: {others}; `kdnas extract` writes one"
        )
    kept = {names[model.architecture]: retention(models[0], model) for model in members}
    found = {member: value for member, value in kept.items() if value is not None}
    if not found:
        raise UsageError(
            f"family: no member has results of a task that {models[0].name} has; run `kdnas suites` for both"
        )
    return found


def of_table(models: Sequence[Model], table: Path) -> list[Model]:
    """The models, with their speed-up over the latency table's teacher if the table has their architecture."""
    faster = {row.arch.name: 1 / row.teacher_ratio for row in LatencyTable.load(table).rows}
    faster[models[0].architecture] = 1.0
    return [
        replace(model, speed_ups={"latency table": (faster[model.architecture],) * 3})
        if model.architecture in faster
        else model
        for model in models
    ]


def of_rounds(models: Sequence[Model], measured: Path) -> list[Model]:
    """The models with the speed-ups that `kdnas speed` measured, including those of the teacher's exported forms if timed.

    Raises:
        UsageError: the timed teacher is not the first model, or the timed student is not among the models.
    """
    artifact = Artifact.load(measured, "speed")
    inputs = artifact.manifest["inputs"]
    student = next((model for model in models[1:] if inputs["student"].startswith(model.digest)), None)
    if student is None or not inputs["teacher"].startswith(models[0].digest):
        raise UsageError(
            f"speeds: {measured} timed student {inputs['student'][:10]} and teacher {inputs['teacher'][:10]}; the first of "
            f"--models must be that teacher, and one of the others that student: {', '.join(m.digest[:10] for m in models)}"
        )
    found = []
    for model, side in ((models[0], "teacher "), (student, "student ")):
        rows = [row for row in artifact.results["rows"] if row["name"].startswith(side)]
        new = {
            row["name"].removeprefix(side): (row["speedup"], row["speedup_low"], row["speedup_high"]) for row in rows
        }
        found.append(replace(model, speed_ups={**model.speed_ups, **new}))
    return [found[0], *(found[1] if model is student else model for model in models[1:])]
