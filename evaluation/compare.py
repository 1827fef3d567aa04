"""`kdnas compare-suites`: compare models on the same data, next to the paper's results, in tables like its Tables 4, 7 and 8."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

from kdnas.errors import UsageError
from kdnas.evaluation.compare_page import write_suites_page
from kdnas.evaluation.compare_tables import Cell, Model, markdown, tables_of
from kdnas.evaluation.harness import RESULT, model_name, resolve_model
from kdnas.models.table import LatencyTable
from kdnas.store.artifact import MANIFEST, Artifact, disk_errors
from kdnas.store.outcome import Outcome
from kdnas.store.progress import say

PAPER = Path(__file__).with_name("paper.json")
DIGEST = re.compile("[0-9a-f]{8,64}")


def compare_suites(
    models: tuple[str, ...],
    latency_table: Path | None = None,
    speeds: tuple[Path, ...] = (),
    output: Path | None = None,
    page: Path | None = None,
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
        home: root folder of all artifacts.

    Raises:
        UsageError: fewer than two models are given, a model has no results, or results are of different data.
    """
    if len(models) < 2:
        raise UsageError(f"models: {len(models)} given; at least two are needed, the teacher first")
    found = [read_model(home, model) for model in models]
    check_same_data(found)
    if latency_table is not None:
        found = of_table(found, latency_table)
    for measured in speeds:
        found = of_rounds(found, measured)
    paper = json.loads(PAPER.read_text())
    tables = tables_of(found, paper)
    text = markdown(tables)
    file = output or home / "suites.md"
    with disk_errors(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    say(text)
    say(f"page: {write_suites_page(found, tables, paper, page or home / 'suites.html')}")
    return Outcome(file, {"models": [model.name for model in found]})


def read_model(home: Path, model: str) -> Model:
    """All results of a model below `home`; if a task and seed has several runs, the newest.

    Raises:
        UsageError: the model has no results.
    """
    only_results = DIGEST.fullmatch(model) is not None and not Path(model).exists()
    digest = model if only_results else resolve_model(model)[1]
    runs: dict[tuple[str, int], Artifact] = {}
    for manifest in sorted((home / "suite").glob(f"*/{MANIFEST}")):
        artifact = Artifact.load(manifest.parent, "suite")
        if artifact.manifest["inputs"]["model"].startswith(digest):
            key = (str(artifact.results["task"]), int(artifact.results["seed"]))
            if key not in runs or runs[key].manifest["finished"] < artifact.manifest["finished"]:
                runs[key] = artifact
    if not runs:
        raise UsageError(
            f"{model}: no results below {home / 'suite'}; run `kdnas suites --model {model} --tasks glue,...`"
        )
    results = {key: json.loads((artifact.path / RESULT).read_text()) for key, artifact in runs.items()}
    tasks = dict.fromkeys(task for task, _ in runs)
    cells = {task: _cell([result for (name, _), result in results.items() if name == task]) for task in tasks}
    about = next(iter(results.values()))["model"]
    whole = next(iter(runs.values())).manifest["inputs"]["model"]
    return Model(about["name"] if only_results else model_name(model), about["architecture"], cells, whole)


def _cell(results: Sequence[Mapping[str, Any]]) -> Cell:
    first = results[0]
    engine = next(iter(first["engines"]))
    languages = first["engines"][engine]["by_language"]
    return Cell(
        tuple(100 * result["score"] for result in results),
        first["metric"],
        {one: 100 * mean(result["engines"][engine]["by_language"][one] for result in results) for one in languages},
        mean(result["seconds"] for result in results),
        tuple(first["notes"]),
        f"{first['data']['digest']} {first['train_examples']} {first['test_examples']}",
    )


def check_same_data(models: Sequence[Model]) -> None:
    """Check that the models were trained and scored on the same rows.

    Raises:
        UsageError: a task's rows differ between two models; the message names them.
    """
    for other in models[1:]:
        for task in models[0].cells.keys() & other.cells.keys():
            if models[0].cells[task].data != other.cells[task].data:
                raise UsageError(
                    f"{task}: {models[0].name} and {other.name} were trained or scored on different rows; run `kdnas suites` "
                    "for both with the same data and caps"
                )


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
