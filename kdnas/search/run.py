"""The search: propose, distil briefly, reward, learn; every finished candidate is kept in the journal."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from kdnas.arch import Arch, SearchSpace
from kdnas.artifact import Artifact, build
from kdnas.corpus import Corpus, build_corpus
from kdnas.errors import KdnasError
from kdnas.progress import stage
from kdnas.rows import TextOptions
from kdnas.search import journal
from kdnas.search.goal import Goal, LatencyTable, make_goal, read_table
from kdnas.search.halving import Halving
from kdnas.search.journal import Candidate
from kdnas.search.options import ProxyOptions, SearchOptions
from kdnas.search.outcome import ProxyResult
from kdnas.search.pareto import hypervolume, pareto_front
from kdnas.search.recording import Recording, read_recording
from kdnas.teacher import Teacher, resolve_teacher

if TYPE_CHECKING:
    from kdnas.search.proxy import Proxy
    from kdnas.search.strategies import Proposal, Strategy

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
        home: root of all artifacts.
    """
    known = read_table(Artifact.load(table, "latency-table"))
    if replay is not None:
        print(run_replay(home, read_recording(replay), space, known, options).path)
        return
    found = resolve_teacher(teacher)
    built = build_corpus(home, corpus, text, found)
    print(run_search(home, found, built, space, known, options).path)


def run_search(
    home: Path, teacher: Teacher, corpus: Corpus, space: SearchSpace, table: LatencyTable, options: SearchOptions
) -> Artifact:
    """Search the part of a space that the teacher can teach; resumes from the journal after an interruption.

    Args:
        home: root of artifacts.
        teacher: the teacher.
        corpus: what candidates are distilled on.
        space: values that each field may take.
        table: latencies of its architectures and of the teacher.
        options: the search.

    Raises:
        UsageError: the teacher can teach nothing of the space, or latencies are missing.
        KdnasError: not one candidate could be evaluated.
    """
    space = space.teachable(teacher.layers)
    goal = make_goal(space, table, options)

    def work(path: Path) -> dict[str, Any]:
        from kdnas.search.proxy import Proxy

        proxy = Proxy(path / STATES, teacher, corpus, space, options.proxy, options.seed)
        results = _explored(path, proxy, goal, options)
        proxy.close()
        return results | {"proxy_tokens": proxy.tokens, "precision": proxy.precision}

    config = {"space": space, "options": options, "teacher_latency_ms": table.teacher_latency_ms}
    inputs = {"teacher": teacher.digest, "corpus": corpus.digest, "latency-table": table.digest}
    return build(home, "search", teacher.label, config, inputs, work)


def run_replay(
    home: Path, recording: Recording, space: SearchSpace, table: LatencyTable, options: SearchOptions
) -> Artifact:
    """Search the recorded part of a space; losses are looked up.

    Args:
        home: root of artifacts.
        recording: losses of architectures.
        space: values that each field may take.
        table: latencies of its architectures and of the teacher.
        options: the search.

    Raises:
        UsageError: nothing of the space is recorded, or latencies are missing.
    """
    goal = make_goal(recording.within(space), table, options)
    config = {"space": space, "options": options, "teacher_latency_ms": table.teacher_latency_ms}
    inputs = {"recording": recording.digest, "latency-table": table.digest}
    return build(home, "search", "replay", config, inputs, lambda path: _explored(path, recording, goal, options))


def _explored(path: Path, distils: "Proxy | Recording", goal: Goal, options: SearchOptions) -> dict[str, Any]:
    from kdnas.search.strategies import make_strategy

    evaluate: Callable[[Arch], ProxyResult] = distils
    if options.halving > 1:
        evaluate = Halving(distils, goal, options.halving, options.halving_looks)
        evaluate.recall(journal.read(path / journal.FILE))
    candidates = explore(path / journal.FILE, make_strategy(goal, options), evaluate, goal, options)
    return summary(candidates, goal) | {"episodes": options.episodes, "strategy": options.strategy}


def explore(
    path: Path,
    strategy: "Strategy",
    evaluate: Callable[[Arch], ProxyResult],
    goal: Goal,
    options: SearchOptions,
) -> list[Candidate]:
    """Run the episodes, taking from the journal what an earlier run finished.

    Args:
        path: the journal; each candidate is appended to it as soon as it is finished.
        strategy: proposes and learns.
        evaluate: distils an architecture.
        goal: latencies and reward.
        options: episodes and candidates an episode.

    Returns:
        All candidates, in order; fewer than asked for where the space has no more.
    """
    from kdnas.search.strategies import Observation

    candidates = journal.read(path)
    total = min(options.episodes * options.candidates_per_episode, len(goal.latencies))
    with stage("search", total, len(candidates)) as progress:
        for episode in range(options.episodes):
            finished = [candidate for candidate in candidates if candidate.episode == episode]
            proposals = strategy.ask(options.candidates_per_episode, [candidate.arch for candidate in finished])
            for proposal in proposals:
                candidate = evaluate_one(proposal, len(candidates), episode, evaluate, goal)
                journal.append(path, candidate)
                candidates.append(candidate)
                finished.append(candidate)
                progress.update(len(candidates), _note(candidate, candidates))
            if not finished:
                break
            strategy.tell([Observation(one.arch, one.reward, one.loss) for one in finished])
    return candidates


def evaluate_one(
    proposal: "Proposal", number: int, episode: int, evaluate: Callable[[Arch], ProxyResult], goal: Goal
) -> Candidate:
    """Distil a proposal; one that diverges or cannot run is a failed candidate, not the end of the search."""
    start, failed, result = time.monotonic(), None, ProxyResult(math.nan, 0)
    try:
        result = evaluate(proposal.arch)
        if not math.isfinite(result.loss):
            failed = f"the loss is {result.loss}"
    except (RuntimeError, MemoryError) as error:  # out of memory, a kernel that refuses a shape
        failed = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"
    return Candidate(
        number=number,
        episode=episode,
        arch=proposal.arch,
        explored=proposal.explored,
        loss=None if failed else result.loss,
        latency_ms=goal.latencies[proposal.arch],
        reward=None if failed else goal.reward(proposal.arch, result.loss),
        predicted_reward=proposal.predicted_reward,
        tokens=result.tokens,
        seconds=round(time.monotonic() - start, 3),
        failed=failed,
        curve=result.curve,
        stopped=result.stopped,
    )


def summary(candidates: list[Candidate], goal: Goal) -> dict[str, Any]:
    """Figures of a finished search.

    Raises:
        KdnasError: every candidate failed.
    """
    winner = journal.best(candidates)
    if winner is None:
        raise KdnasError(
            f"search: all {len(candidates)} candidates failed, the first with '{candidates[0].failed}'; "
            "try a lower --proxy.peak_lr"
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


def _note(latest: Candidate, candidates: list[Candidate]) -> str:
    """The latest and the best candidate, for the progress display."""
    best = journal.best(candidates)
    shown = (
        f"{latest.arch} failed" if latest.failed else f"{latest.arch} loss {latest.loss:.3f} reward {latest.reward:.3f}"
    )
    return shown + (f"; best {best.arch} {best.reward:.3f}" if best else "")
