"""`kdnas search`: propose, distil briefly, reward, learn. The journal keeps every finished candidate."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from kdnas.cluster import require_ray
from kdnas.distill.building import deciding, settled, shared_with_candidates
from kdnas.distill.options import DistillOptions
from kdnas.errors import KdnasError, UsageError
from kdnas.models.arch import Arch, SearchSpace
from kdnas.models.table import LatencyTable
from kdnas.models.table_teacher import require_teacher
from kdnas.models.teacher import Teacher, resolve_teacher
from kdnas.search import baselines, journal
from kdnas.search.cluster import all_of
from kdnas.search.explore import explore
from kdnas.search.full import Full
from kdnas.search.goal import Goal
from kdnas.search.journal import Candidate
from kdnas.search.limits import make_goal
from kdnas.search.options import SearchOptions
from kdnas.search.outcome import Evaluate, EvaluateAll, one_by_one
from kdnas.search.pareto import hypervolume, pareto_front
from kdnas.search.recording import Recording, read_recording, require_objective, require_recorded_with
from kdnas.search.strategies import make_strategy
from kdnas.store.artifact import Artifact, build
from kdnas.store.host import host, host_name
from kdnas.store.outcome import Result
from kdnas.store.output import deliver, require_output
from kdnas.store.progress import say
from kdnas.text.corpus import Corpus, build_corpus
from kdnas.text.readers import TextOptions

if TYPE_CHECKING:
    from kdnas.search.proxy import Proxy

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
    allow_other_teacher: bool = False,
    home: Path = Path("artifacts"),
    output: Path | None = None,
) -> Result:
    """Search for the student with the best reward.

    Args:
        options: the search.
        table: folder that `kdnas latency-table` printed.
        teacher: `builtin:NAME` (`kdnas teachers` lists them), a folder, or a hub id.
        corpus: `builtin:pydocs`, a file or folder, several of both separated by commas, or a hub id.
        text: how the corpus is read.
        space: values that each field may take; depths beyond the teacher's are left out.
        replay: folder or CSV that `kdnas record` printed: losses are looked up in it instead of distilling, and only its
            architectures are proposed.
        ray: `local`, or the address of a Ray cluster, to distil candidates in parallel, each on one core; its nodes must see
            the teacher, the corpus and the home under the same paths.
        distill: options of the distillation that follows: candidates start, map their layers and scale the loss as it does, and
            with `proxy.objective` embedding have its losses of embeddings; with `--evaluator full` all its options hold, and
            `steps` is required.
        allow_other_teacher: use a table that was measured with another teacher; by default it is rejected.
        home: root of all artifacts.
        output: folder that gets the result as plain files; null writes only below `home`.

    Raises:
        UsageError: the table or the recording is of another teacher, the recording is of another objective, or options do not
            fit together.
    """
    require_output(output, "search")
    require_compatible(replay, ray)
    require_full(options, distill)
    home = home.resolve() if ray else home  # workers on other nodes have another working folder
    known = LatencyTable.load(table)
    found = resolve_teacher(teacher, home)
    require_teacher(known, found, allow_other_teacher, "search")
    if replay is not None:
        recording = read_recording(replay)
        require_recorded_with(recording, found, "search")
        require_objective(recording, options.proxy.objective, "search")
        return deliver(run_replay(home, recording, space, known, options, found), output)
    make_goal(space.teachable(found.layers), known, options, found)  # reject now: building the corpus may take minutes
    built = build_corpus(home, corpus, text, found)
    return deliver(run_search(home, found, built, space, known, options, ray, distill), output)


def require_compatible(replay: Path | None, ray: str | None) -> None:
    """Raise UsageError if a replay is combined with a cluster, or if the package of the cluster is not installed."""
    if ray is not None and replay is not None:
        raise UsageError(f"ray is '{ray}'; it does not work with --replay: leave it out")
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
) -> Artifact:
    """Search the part of a space that fits the teacher; resumes from the journal after an interruption.

    Args:
        home: root of artifacts.
        teacher: the teacher.
        corpus: sentences to distil candidates on.
        space: values that each field may take.
        table: latencies of the space's architectures and of the teacher.
        options: the search.
        ray: `local`, or the address of a Ray cluster whose workers distil; None distils here.
        distill: options of the later distillation: start, mapping, projections and scale of the loss for the proxy, all for the
            full evaluator.

    Raises:
        UsageError: every architecture of the space is deeper than the teacher, none is within the limits, or the full
            evaluator's steps are missing.
        KdnasError: all candidates failed.
    """
    require_compatible(None, ray)
    require_full(options, distill)
    space = space.teachable(teacher.layers)
    _warn_of_other_host(table)
    goal = make_goal(space, table, options, teacher)
    shapes = baselines.possible(space) if options.baselines else {}
    absolute = replace(teacher, path=teacher.path.resolve())

    def distilled(path: Path, make: Callable[[], Evaluate], here: "Proxy | Full") -> dict[str, Any]:
        with all_of(make, here, ray) as evaluate_all:
            return _explored(path, evaluate_all, goal, options, table, shapes)

    def proxy_work(path: Path) -> dict[str, Any]:
        from kdnas.search.proxy import Proxy

        make = partial(Proxy, path / STATES, absolute, corpus, space, options.proxy, options.seed, distill, home)
        proxy = make()  # computes the teacher's states before any worker needs them
        results = distilled(path, make, proxy)
        proxy.close()
        return results | proxy.figures

    def full_work(path: Path) -> dict[str, Any]:
        make = partial(Full, home, absolute, corpus, distill)
        results = distilled(path, make, make())
        return results | {
            "proxy_tokens": results["tokens"] // results["candidates"],
            "objective": distill.objective,
        }

    config = {"space": space, "options": options, "teacher_latency_ms": table.teacher_latency_ms}
    inputs = {"teacher": teacher.digest, "corpus": corpus.digest, "latency-table": table.digest}
    if options.evaluator == "full":
        chosen = deciding(settled(distill, corpus, teacher))
        return build(home, "search", teacher.label, config | {"distill": chosen}, inputs, full_work)
    config |= {"distill": shared_with_candidates(distill, options.proxy.objective)}
    return build(home, "search", teacher.label, config, inputs, proxy_work)


def _warn_of_other_host(table: LatencyTable) -> None:
    if table.host not in ("", host_name(host())):
        say(f"search: the latency table was measured on another host: {table.host}")


def run_replay(
    home: Path,
    recording: Recording,
    space: SearchSpace,
    table: LatencyTable,
    options: SearchOptions,
    teacher: Teacher | None = None,
) -> Artifact:
    """Search the recorded part of a space; the losses come from the recording.

    Args:
        home: root of artifacts.
        recording: losses of architectures.
        space: values that each field may take.
        table: latencies of the space's architectures and of the teacher.
        options: the search.
        teacher: teacher of the recording; the surrogate uses its shape.

    Raises:
        UsageError: no architecture of the space is recorded, or none is within the limits.
    """
    goal = make_goal(recording.within(space), table, options, teacher)
    shapes = baselines.possible(space, recording.losses) if options.baselines else {}

    def work(path: Path) -> dict[str, Any]:
        results = _explored(path, one_by_one(recording), goal, options, table, shapes)
        return results | {"objective": recording.source.objective}

    config = {"space": space, "options": options, "teacher_latency_ms": table.teacher_latency_ms}
    inputs = {"recording": recording.digest, "latency-table": table.digest}
    return build(home, "search", "replay", config | {"teacher": str(goal.teacher)}, inputs, work)


def require_full(options: SearchOptions, distill: DistillOptions) -> None:
    """Raise UsageError if full distillation has no equal budget for all candidates, or would ignore the proxy's objective."""
    if options.evaluator == "full" and options.proxy.objective not in ("hidden-state", distill.objective):
        raise UsageError(
            f"proxy.objective is '{options.proxy.objective}', and evaluator is 'full', which distils with distill.objective, "
            f"'{distill.objective}': set --distill.objective instead"
        )
    if options.evaluator == "full" and distill.steps is None:
        raise UsageError(
            "evaluator is 'full' and distill.steps is not given; minutes would give each shape a different budget: "
            "add --distill.steps"
        )


def _explored(
    path: Path,
    evaluate_all: EvaluateAll,
    goal: Goal,
    options: SearchOptions,
    table: LatencyTable,
    shapes: Mapping[str, Arch],
) -> dict[str, Any]:
    strategy = make_strategy(goal, options)
    candidates = explore(path / journal.FILE, strategy, evaluate_all, goal, options)
    results = summary(candidates, goal) | {"episodes": options.episodes, "strategy": options.strategy}
    if shapes:
        file = path / baselines.FILE
        results["baselines"] = baselines.measure_baselines(file, shapes, evaluate_all, candidates, table, options)
    return results


def summary(candidates: list[Candidate], goal: Goal) -> dict[str, Any]:
    """Results of a finished search; warns if the winner is slower than its teacher.

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
            "how much latency counts depends on the scale of the loss; to limit it, use for example --max_latency_fraction 0.5"
        )
    finished = [candidate for candidate in candidates if candidate.loss is not None]
    points = [goal.point(candidate.arch, candidate.loss or 0.0) for candidate in finished]
    front = pareto_front(points if goal.front else [point[:2] for point in points])
    return {
        "winner": str(winner.arch),
        "winner_reward": winner.reward,
        "candidates": len(candidates),
        "failed": sum(candidate.failed is not None for candidate in candidates),
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
            for one in (finished[index] for index in front)
        ],
        "seconds_per_candidate": round(mean(candidate.seconds for candidate in candidates), 3),
    }
