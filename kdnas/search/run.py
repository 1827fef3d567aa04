"""`kdnas search`: propose, distil briefly, reward, learn. The journal keeps every finished candidate."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdnas.distill.building import deciding, settled, shared_with_candidates
from kdnas.distill.options import DistillOptions
from kdnas.models.arch import SearchSpace
from kdnas.models.table import LatencyTable
from kdnas.models.table_teacher import require_teacher
from kdnas.models.teacher import Teacher, resolve_teacher
from kdnas.search import baselines
from kdnas.search.cluster import all_of
from kdnas.search.explored import explored
from kdnas.search.family_losses import FamilyLosses
from kdnas.search.full import Full
from kdnas.search.known_losses import recording_of, run_family, run_replay
from kdnas.search.limits import make_goal
from kdnas.search.options import SearchOptions
from kdnas.search.outcome import Evaluate
from kdnas.search.requirements import require_compatible, require_distilling, require_family, require_full
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
    family: Path | None = None,
    compare: Path | None = None,
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
        family: for `--evaluator family`: folder that `kdnas autodistil` printed. Only its members are proposed.
        compare: for `--evaluator family`: folder or CSV that `kdnas record` printed; reports how well the family ranks its
            architectures.
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
    require_family(options, family, compare, replay, ray)
    home = home.resolve() if ray else home  # workers on other nodes have another working folder
    known = LatencyTable.load(table)
    found = resolve_teacher(teacher, home)
    require_teacher(known, found, allow_other_teacher, "search")
    if replay is not None:
        recording = recording_of(replay, found, options.proxy.objective)
        return deliver(run_replay(home, recording, space, known, options, found), output)
    if family is not None:
        losses = FamilyLosses.load(family, found)
        recorded = None if compare is None else recording_of(compare, found)
        return deliver(run_family(home, losses, space, known, options, found, recorded), output)
    make_goal(space.teachable(found.layers), known, options, found)  # reject now: building the corpus may take minutes
    built = build_corpus(home, corpus, text, found)
    return deliver(run_search(home, found, built, space, known, options, ray, distill), output)


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
    require_distilling(options)
    space = space.teachable(teacher.layers)
    _warn_of_other_host(table)
    goal = make_goal(space, table, options, teacher)
    shapes = baselines.possible(space) if options.baselines else {}
    absolute = replace(teacher, path=teacher.path.resolve())

    def distilled(path: Path, make: Callable[[], Evaluate], here: "Proxy | Full") -> dict[str, Any]:
        with all_of(make, here, ray) as evaluate_all:
            return explored(path, evaluate_all, goal, options, table, shapes)

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
