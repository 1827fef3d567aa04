"""The search: propose, distil briefly, reward, learn; every finished candidate is kept in the journal."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from kdnas.distill.building import deciding
from kdnas.distill.options import DistillOptions
from kdnas.errors import KdnasError, UsageError
from kdnas.models.arch import Arch, SearchSpace
from kdnas.models.teacher import Teacher, resolve_teacher
from kdnas.search import baselines, journal
from kdnas.search.explore import all_of, explore, one_by_one, require_ray
from kdnas.search.full import Full
from kdnas.search.goal import Goal, LatencyTable, host_name, make_goal, read_table, with_choices
from kdnas.search.halving import Halving
from kdnas.search.journal import Candidate
from kdnas.search.options import ProxyOptions, SearchOptions
from kdnas.search.pareto import hypervolume, pareto_front
from kdnas.search.recording import Recording, read_recording
from kdnas.store.artifact import Artifact, build
from kdnas.store.host import host
from kdnas.store.progress import say
from kdnas.text.corpus import Corpus, build_corpus
from kdnas.text.readers import TextOptions

if TYPE_CHECKING:
    from kdnas.search.explore import Evaluate, EvaluateAll
    from kdnas.search.proxy import Proxy

__all__ = ["ProxyOptions", "SearchOptions", "run_search", "search"]

STATES = "teacher-states"  # scratch in the working folder, deleted before the artifact is published


def search(
    options: SearchOptions,
    table: Path,
    teacher: str = "builtin:minilm-l6",
    corpus: str = "builtin:pydocs",
    text: TextOptions = TextOptions(),
    space: SearchSpace = SearchSpace(),
    replay: Path | None = None,
    ray: str | None = None,
    distill: DistillOptions = DistillOptions(),
    more_tables: tuple[Path, ...] = (),
    home: Path = Path("artifacts"),
) -> None:
    """Search for the student with the best reward, and print the folder of the result.

    Args:
        options: the search.
        table: folder that `kdnas latency-table` printed.
        teacher: `builtin:minilm-l6`, a folder, or a hub id.
        corpus: `builtin:pydocs`, a file, or a hub id.
        text: how the corpus is read.
        space: values that each field may take; depths beyond the teacher's are left out.
        replay: losses that `kdnas record` kept, to be looked up in place of distilling; of its architectures alone.
        ray: `local`, or the address of a Ray cluster, to distil candidates side by side, each on one core; its nodes see the
            teacher, the corpus and the home under the same paths.
        distill: of `--evaluator full`; `steps` is needed.
        more_tables: latency tables of other engines on the same host: the search chooses the engine as well, and an int8 engine's
            loss is that of 8-bit products.
        home: root of all artifacts.
    """
    require_one_way(options, replay, ray, bool(more_tables))
    require_steps(options, distill)
    home = home.resolve() if ray else home  # workers of other nodes have another folder to start from
    artifact = Artifact.load(table, "latency-table")
    known = read_table(artifact)
    found = resolve_teacher(teacher)
    warn_of_other_teacher(artifact, found)
    if replay is not None:
        print(run_replay(home, read_recording(replay), space, known, options, found).path)
        return
    engines = [Artifact.load(path, "latency-table") for path in more_tables]
    for engine in engines:
        warn_of_other_teacher(engine, found)
    others = [read_table(engine) for engine in engines]
    _allowed(space, known, others, options, found)  # before the corpus is built, which may take minutes
    built = build_corpus(home, corpus, text, found)
    print(run_search(home, found, built, space, known, options, ray, distill, others).path)


def warn_of_other_teacher(table: Artifact, teacher: Teacher) -> None:
    """Say so where a latency table was measured beside another teacher than the one that is searched with."""
    if table.manifest["inputs"].get("teacher") != teacher.digest:
        say(
            f"search: {table.path} was measured with another teacher than '{teacher.spec}': its vocabulary, lengths and "
            f"teacher latency are not yours; build one with `kdnas latency-table --teacher {teacher.spec}`"
        )


def require_one_way(options: SearchOptions, replay: Path | None, ray: str | None, engines: bool = False) -> None:
    """Raise UsageError where options do not go together, or a cluster is asked for and its package is not installed."""
    if (engines or options.vocabularies) and (replay is not None or options.evaluator == "full"):
        raise UsageError(
            "more_tables and vocabularies need the losses of engines and vocabularies, which the proxy alone measures: leave "
            "them out, or leave out --replay and --evaluator full"
        )
    if ray is None:
        return
    if replay is not None or options.halving > 1:
        raise UsageError(f"ray is '{ray}'; it goes neither with --replay nor with --halving: leave it out")
    require_ray(ray)


def run_search(
    home: Path,
    teacher: Teacher,
    corpus: Corpus,
    space: SearchSpace,
    table: LatencyTable,
    options: SearchOptions,
    ray: str | None = None,
    distill: DistillOptions = DistillOptions(),
    more_tables: Sequence[LatencyTable] = (),
) -> Artifact:
    """Search the part of a space that the teacher can teach; resumes from the journal after an interruption.

    Args:
        home: root of artifacts.
        teacher: the teacher.
        corpus: what candidates are distilled on.
        space: values that each field may take.
        table: latencies of its architectures and of the teacher.
        options: the search.
        ray: `local`, or the address of a Ray cluster whose workers distil; None distils here.
        distill: of the full evaluator.
        more_tables: of other engines, which are chosen as well.

    Raises:
        UsageError: the teacher can teach nothing of the space, latencies are missing, or the full evaluator's steps are.
        KdnasError: not one candidate could be evaluated.
    """
    require_one_way(options, None, ray, bool(more_tables))
    require_steps(options, distill)
    space = space.teachable(teacher.layers)
    _tell_other_host(table)
    goal, digest = _allowed(space, table, more_tables, options, teacher)
    shapes = baselines.possible(space, table.latencies) if options.baselines else {}
    absolute = replace(teacher, path=teacher.path.resolve())

    def distilled(path: Path, make: "Callable[[], Evaluate]", here: "Proxy | Full") -> dict[str, Any]:
        with all_of(make, here, ray) as to_the_end:
            evaluate_all = to_the_end if ray else _evaluator(path, here, goal, options)
            return _explored(path, evaluate_all, to_the_end, goal, options, table, shapes)

    def proxy_work(path: Path) -> dict[str, Any]:
        from kdnas.search.proxy import Proxy

        make = partial(Proxy, path / STATES, absolute, corpus, space, options.proxy, options.seed)
        proxy = make()  # the teacher's states are computed before any worker wants them
        results = distilled(path, make, proxy)
        proxy.close()
        return results | proxy.figures

    def full_work(path: Path) -> dict[str, Any]:
        make = partial(Full, home, absolute, corpus, distill)
        results = distilled(path, make, make())
        return results | {"proxy_tokens": results["tokens"] // results["candidates"]}

    config = {"space": space, "options": options, "teacher_latency_ms": table.teacher_latency_ms}
    inputs = {"teacher": teacher.digest, "corpus": corpus.digest, "latency-table": digest}
    if options.evaluator == "full":
        return build(home, "search", teacher.label, config | {"distill": deciding(distill)}, inputs, full_work)
    return build(home, "search", teacher.label, config, inputs, proxy_work)


def _tell_other_host(table: LatencyTable) -> None:
    if table.host not in ("", host_name(host())):
        say(f"search: the latency table is of another host than this one: {table.host}")


def _allowed(
    space: SearchSpace,
    table: LatencyTable,
    more_tables: Sequence[LatencyTable],
    options: SearchOptions,
    teacher: Teacher,
) -> tuple[Goal, str]:
    """What may be proposed: architectures, with vocabulary and engine where those are chosen as well; and the tables' digest."""
    states: Iterable[Arch] = space.teachable(teacher.layers)
    if more_tables or options.vocabularies:
        whole = int(teacher.config["vocab_size"])
        states, table = with_choices(states, [table, *more_tables], options.vocabularies, whole)
    return make_goal(states, table, options, teacher), table.digest


def run_replay(
    home: Path,
    recording: Recording,
    space: SearchSpace,
    table: LatencyTable,
    options: SearchOptions,
    teacher: Teacher | None = None,
) -> Artifact:
    """Search the recorded part of a space; losses are looked up.

    Args:
        home: root of artifacts.
        recording: losses of architectures.
        space: values that each field may take.
        table: latencies of its architectures and of the teacher.
        options: the search.
        teacher: of the recording; its shape is a hint.

    Raises:
        UsageError: nothing of the space is recorded, or latencies are missing.
    """
    goal = make_goal(recording.within(space), table, options, teacher)

    known = {arch: table.latencies[arch] for arch in recording.losses if arch in table.latencies}
    shapes = baselines.possible(space, known) if options.baselines else {}

    def work(path: Path) -> dict[str, Any]:
        evaluate = _evaluator(path, recording, goal, options)
        return _explored(path, evaluate, one_by_one(recording), goal, options, table, shapes)

    config = {"space": space, "options": options, "teacher_latency_ms": table.teacher_latency_ms}
    inputs = {"recording": recording.digest, "latency-table": table.digest}
    return build(home, "search", "replay", config | {"teacher": str(goal.teacher)}, inputs, work)


def require_steps(options: SearchOptions, distill: DistillOptions) -> None:
    """Raise UsageError where full distillation has no equal budget for all."""
    if options.evaluator == "full" and distill.steps is None:
        raise UsageError(
            "evaluator is 'full' and distill.steps is not given; minutes would give each shape another budget: "
            "add --distill.steps"
        )


def _explored(
    path: Path,
    evaluate_all: "EvaluateAll",
    to_the_end: "EvaluateAll",
    goal: Goal,
    options: SearchOptions,
    table: LatencyTable,
    shapes: Mapping[str, Arch],
) -> dict[str, Any]:
    from kdnas.search.strategies import make_strategy

    candidates = explore(path / journal.FILE, make_strategy(goal, options), evaluate_all, goal, options)
    results = summary(candidates, goal) | {"episodes": options.episodes, "strategy": options.strategy}
    if shapes:
        known = (candidates, table.latencies, table.teacher_latency_ms, options)
        results["baselines"] = baselines.measure_baselines(path / baselines.FILE, shapes, to_the_end, *known)
    return results


def _evaluator(path: Path, distils: "Proxy | Full | Recording", goal: Goal, options: SearchOptions) -> "EvaluateAll":
    """One after the other, most of them not to the end where halving is wanted."""
    if options.halving == 1 or isinstance(distils, Full):
        return one_by_one(distils)
    halving = Halving(distils, goal, options.halving, options.halving_looks)
    halving.recall(journal.read(path / journal.FILE))
    return one_by_one(halving)


def summary(candidates: list[Candidate], goal: Goal) -> dict[str, Any]:
    """Figures of a finished search; a winner that is slower than its teacher is told.

    Raises:
        KdnasError: every candidate failed.
    """
    winner = journal.best(candidates)
    if winner is None:
        raise KdnasError(
            f"search: all {len(candidates)} candidates failed, the first with '{candidates[0].failed}'; "
            "try a lower --proxy.peak_lr"
        )
    if winner.latency_ms > goal.teacher_latency_ms:
        say(
            f"search: the winner, {winner.arch}, takes {winner.latency_ms:.3g} ms, its teacher {goal.teacher_latency_ms:.3g}: "
            "the reward lets a low loss buy any latency; give --max_latency_share, as 0.5"
        )
    finished = [candidate for candidate in candidates if candidate.loss is not None and not candidate.stopped]
    points = [goal.point(candidate.arch, candidate.loss or 0.0) for candidate in finished]
    front = pareto_front(points if goal.front else [point[:2] for point in points])
    return {
        "winner": str(winner.arch),
        "winner_reward": winner.reward,
        "candidates": len(candidates),
        "failed": sum(candidate.failed is not None for candidate in candidates),
        "stopped": sum(candidate.stopped for candidate in candidates),
        "tokens": sum(candidate.tokens for candidate in candidates),
        "space_size": len(goal.latencies),
        "teacher_latency_ms": goal.teacher_latency_ms,
        "hypervolume": hypervolume(points, goal.worst),
        "pareto": [
            {
                "arch": str(one.arch),
                "loss": one.loss,
                "latency_ms": one.latency_ms,
                "megabytes": goal.megabytes.get(one.arch),
                "reward": one.reward,
            }
            for one in (finished[place] for place in front)
        ],
        "seconds_per_candidate": round(mean(candidate.seconds for candidate in candidates), 3),
    }
