"""`kdnas compare-embeddings`: nDCG@10 of retrieval against milliseconds, between the static student and the teacher."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import plotly.graph_objects as go

from kdnas.errors import UsageError
from kdnas.evaluation.compare_tables import Table, markdown
from kdnas.evaluation.front_scores import Score, read_scores
from kdnas.evaluation.suite_options import TRAINED
from kdnas.models.engine import PYTORCH
from kdnas.models.folder import model_digest
from kdnas.page.style import GREY, HALO, mark, style, text
from kdnas.page.write import require_file_name, write_page
from kdnas.search.pareto import pareto_front
from kdnas.store.artifact import Artifact
from kdnas.store.disk import disk_errors
from kdnas.store.host import host_name
from kdnas.store.outcome import Outcome
from kdnas.store.progress import say

TEACHER, STATIC = "teacher", "static student"


@dataclass(frozen=True)
class Timed:
    """One model in one engine.

    Args:
        name: name of the model.
        engine: `pytorch`, a form of an export, or `none` for the static student.
        digest: digest of the model or the export, as in the results of the suites.
        teacher: digest of the teacher.
        ms: mean milliseconds of one text.
    """

    name: str
    engine: str
    digest: str
    teacher: str
    ms: float


@dataclass(frozen=True)
class Point:
    """A timed model with its scores: nDCG@10 from 0 to 1, alone and with the teacher's documents (None if it was not scored)."""

    timed: Timed
    ndcg: float
    asymmetric: float | None


def compare_embeddings(
    speeds: tuple[Path, ...],
    static: Path,
    output: Path | None = None,
    page: Path | None = None,
    home: Path = Path("artifacts"),
) -> Outcome:
    """Compare students, their teacher and the static student in retrieval and in time, as a table and a plot.

    Args:
        speeds: folders that `kdnas speed` printed for the students, all with the same teacher and on the same host.
        static: folder that `kdnas static-student` printed for this teacher on this host.
        output: Markdown file to write; by default `embeddings.md` below `home`.
        page: HTML file to write, with the same table and a plot; by default `embeddings.html` below `home`.
        home: root folder of all artifacts, with the results of `kdnas suites --tasks embeddings` for the students, the static
            student and the teacher (which `--teacher` scores, too).

    Raises:
        UsageError: the measurements are of several teachers or hosts, or a model has no scores of retrieval.
    """
    page = page or home / "embeddings.html"
    require_file_name(page, "embeddings.html")
    measured = [Artifact.load(folder, "speed") for folder in speeds]
    bottom = Artifact.load(static, "static")
    host = same_host([*measured, bottom])
    scores = read_scores(home)
    points, tasks = scored(timings(measured, bottom, scores), scores)
    table = table_of(points, tasks)
    file = output or home / "embeddings.md"
    with disk_errors(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(written := markdown([table], "Embeddings"), encoding="utf-8")
    say(written)
    figure = json.loads(front_scatter(points).to_json())
    values = {"tables": [table], "figures": {"front": figure}, "tasks": ", ".join(tasks), "host": host}
    write_page(page, "kdnas.evaluation", values, "front.html.jinja")
    say(f"page: {page}")
    return Outcome(file, {"models": len(points), "tasks": tasks})


def same_host(artifacts: Sequence[Artifact]) -> str:
    """The host on which all were measured.

    Raises:
        UsageError: they were measured on several.
    """
    hosts = list(dict.fromkeys(host_name(artifact.manifest["host"]) for artifact in artifacts))
    if len(hosts) > 1:
        raise UsageError(f"speeds and static were measured on several hosts: {'; '.join(hosts)}; measure all on one")
    return hosts[0]


def timings(
    measured: Sequence[Artifact], static: Artifact, scores: Mapping[tuple[str, str], Mapping[str, Score]]
) -> list[Timed]:
    """All models with their times, the teacher's averaged over the measurements.

    Raises:
        UsageError: the measurements are of several teachers.
    """
    teachers = {artifact.manifest["inputs"]["teacher"] for artifact in [*measured, static]}
    if len(teachers) > 1 or not measured:
        raise UsageError(
            f"speeds and static are of {len(teachers)} teachers (digests {', '.join(sorted(one[:10] for one in teachers))}); "
            "give measurements with one teacher"
        )
    own, found, of_teacher = teachers.pop(), list[Timed](), dict[tuple[str, str], list[float]]()
    for artifact in measured:
        inputs = artifact.manifest["inputs"]
        names = {
            one.model for (digest, _), tasks in scores.items() if digest == inputs["student"] for one in tasks.values()
        }
        name = min(names, default=inputs["student"][:10])
        for row in artifact.results["rows"]:
            side, _, engine = row["name"].partition(" ")
            plain, exported = ("teacher", "exported teacher") if side == TEACHER else ("student", "exported")
            digest = inputs[plain if engine == PYTORCH else exported]
            engine = TRAINED if engine == PYTORCH else engine
            if side == TEACHER:
                of_teacher.setdefault((digest, engine), []).append(row["mean_ms"])
            else:
                found.append(Timed(name, engine, digest, own, row["mean_ms"]))
    found += [Timed(TEACHER, engine, digest, own, mean(times)) for (digest, engine), times in of_teacher.items()]
    own_digest = model_digest(static.path / "student")
    return [*found, Timed(STATIC, "none", own_digest, own, static.results["mean_ms"])]


def scored(
    timed: Sequence[Timed], scores: Mapping[tuple[str, str], Mapping[str, Score]]
) -> tuple[list[Point], list[str]]:
    """The models that have scores, fastest first, and the tasks that all of them have.

    Raises:
        UsageError: the teacher, the static student or all students have no scores, the models share no task, or were scored on
            different texts.
    """
    known = {}
    for one in timed:
        rows = scores.get((one.digest, TRAINED if one.engine == "none" else one.engine))
        if rows:
            known[one] = rows
        else:
            say(f"compare-embeddings: left out: {one.name} in {one.engine} has no scores of retrieval")
    names = {one.name for one in known}
    missing = [name for name in (TEACHER, STATIC) if name not in names]
    if missing or len(names) < 3:
        raise UsageError(
            f"no scores of retrieval for {missing[0] if missing else 'any student'}; run `kdnas suites --tasks embeddings "
            "--model MODEL --teacher TEACHER` with the same --home"
        )
    tasks = sorted(set.intersection(*(set(rows) for rows in known.values())))
    if not tasks:
        raise UsageError("the models share no task of retrieval; score them all with `kdnas suites --tasks embeddings`")
    for task in tasks:
        if len({rows[task].data for rows in known.values()}) > 1:
            raise UsageError(
                f"{task}: the models were scored on different texts; give the same data and --max-test to all"
            )
    points = []
    for one, rows in known.items():
        mixed = [rows[task].asymmetric for task in tasks]
        given = [value for value in mixed if value is not None]
        asymmetric = mean(given) if len(given) == len(mixed) else None
        points.append(Point(one, mean(rows[task].value for task in tasks), asymmetric))
    return sorted(points, key=lambda point: point.timed.ms), tasks


def front_of(points: Sequence[Point]) -> list[Point]:
    """The points that no other one beats in both, fastest first."""
    return [points[index] for index in pareto_front([(1 - point.ndcg, point.timed.ms) for point in points])]


def table_of(points: Sequence[Point], tasks: Sequence[str]) -> Table:
    """A row for each model and engine, fastest first."""
    whole = next(point.ndcg for point in points if point.timed.name == TEACHER)
    front = front_of(points)
    rows = [
        [
            point.timed.name,
            point.timed.engine,
            f"{point.timed.ms:.3g}",
            f"{100 * point.ndcg:.1f}",
            f"{100 * point.ndcg / whole:.1f} %" if whole > 0 else "",
            "" if point.asymmetric is None else f"{100 * point.asymmetric:.1f}",
            "yes" if point in front else "",
        ]
        for point in points
    ]
    head = ["model", "engine", "ms", "nDCG@10", "of the teacher's", "in the teacher's documents", "on the front"]
    note = f"Mean nDCG@10 over {', '.join(tasks)}; mean milliseconds of one text at batch 1, without tokenising."
    return Table("Retrieval and time", head, rows, note)


def front_scatter(points: Sequence[Point]) -> go.Figure:
    """nDCG@10 against milliseconds, a trace for each engine, and the front."""
    figure, front = go.Figure(), front_of(points)
    figure.add_scatter(
        x=[point.timed.ms for point in front],
        y=[100 * point.ndcg for point in front],
        mode="lines",
        name="front",
        line={"color": GREY, "width": 2, "dash": "dot"},
        hoverinfo="skip",
    )
    kinds = dict.fromkeys(_kind(point.timed) for point in points)
    for index, kind in enumerate(kinds):
        drawn, own = mark(index), [point for point in points if _kind(point.timed) == kind]
        figure.add_scatter(
            x=[point.timed.ms for point in own],
            y=[100 * point.ndcg for point in own],
            mode="markers",
            name=text(kind),
            marker={"size": 11, "color": drawn.colour, "symbol": drawn.symbol, "line": {"width": 1, "color": HALO}},
            hovertext=[text(f"{point.timed.name}, {point.timed.engine}") for point in own],
            hovertemplate="%{hovertext}<br>%{x:.3g} ms<br>nDCG@10 %{y:.1f}<extra></extra>",
        )
    figure.update_xaxes(title_text="time of one text (ms)", type="log")
    figure.update_yaxes(title_text="nDCG@10 (points)")
    return style(figure, 460)


def _kind(timed: Timed) -> str:
    """Name of a point's trace."""
    return timed.name if timed.name in (TEACHER, STATIC) else f"students, {timed.engine}"
