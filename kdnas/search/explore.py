"""The episodes of a search: propose, distil, learn; every finished candidate is in the journal at once."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kdnas.errors import DivergenceError
from kdnas.extras import require_extras
from kdnas.models.arch import Arch
from kdnas.search import journal
from kdnas.search.goal import Goal
from kdnas.search.journal import Candidate
from kdnas.search.options import SearchOptions
from kdnas.search.outcome import ProxyResult
from kdnas.search.pareto import pareto_front
from kdnas.search.strategies import Observation, Proposal, Strategy
from kdnas.store.progress import stage


@dataclass(frozen=True)
class Attempt:
    """What came of distilling one architecture.

    Args:
        result: of the distillation; a loss that is not a number where it failed.
        failed: why.
        seconds: wall time.
    """

    result: ProxyResult
    failed: str | None
    seconds: float


Evaluate = Callable[[Arch], ProxyResult]
EvaluateAll = Callable[[Sequence[Arch]], Iterator[tuple[int, Attempt]]]  # places as they finish, in any order


def attempt(evaluate: Evaluate, arch: Arch) -> Attempt:
    """Distil an architecture; one that diverges or cannot run is a failed candidate, not the end of the search."""
    start, failed, result = time.monotonic(), None, ProxyResult(math.nan, 0)
    try:
        result = evaluate(arch)
        if not math.isfinite(result.loss):
            failed = f"the loss is {result.loss}"
    except (RuntimeError, MemoryError, DivergenceError) as error:  # out of memory, a kernel that refuses a shape
        failed = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"
    return Attempt(result, failed, round(time.monotonic() - start, 3))


def one_by_one(evaluate: Evaluate) -> EvaluateAll:
    """Distil in this process, in order."""
    return lambda archs: ((place, attempt(evaluate, arch)) for place, arch in enumerate(archs))


def require_ray(ray: str | None) -> None:
    """Raise KdnasError where a cluster is asked for and its package is not installed."""
    if ray is not None:
        require_extras("--ray", ("cluster",))


@contextmanager
def all_of(make: Callable[[], Evaluate], here: Evaluate, ray: str | None) -> Iterator[EvaluateAll]:
    """What distils architectures: one after the other in this process, or side by side on a Ray cluster.

    Args:
        make: gives a worker what it distils with, in its process.
        here: the same for this process.
        ray: `local`, or the address of a cluster; None distils here.
    """
    if ray is None:
        yield one_by_one(here)
        return
    from kdnas.search.cluster import Workers

    with Workers(ray, make) as workers:
        yield workers


def explore(
    path: Path, strategy: Strategy, evaluate_all: EvaluateAll, goal: Goal, options: SearchOptions
) -> list[Candidate]:
    """Run the episodes, taking from the journal what an earlier run finished.

    Args:
        path: the journal; each candidate is appended to it as soon as it is finished.
        strategy: proposes and learns.
        evaluate_all: distils architectures.
        goal: latencies and reward.
        options: episodes and candidates an episode.

    Returns:
        All candidates, in the order in which they were proposed; fewer than asked for where the space has no more.
    """
    candidates = journal.read(path)
    total = min(options.episodes * options.candidates_per_episode, len(goal.latencies))
    with stage("search", total, len(candidates)) as progress:
        for episode in range(options.episodes):
            first = sum(candidate.episode < episode for candidate in candidates)
            finished = {one.number: one for one in candidates if one.episode == episode}
            archs = [finished[number].arch for number in sorted(finished)]
            proposals = strategy.ask(options.candidates_per_episode, archs)
            numbers = range(first, first + len(finished) + len(proposals))
            missing = [number for number in numbers if number not in finished]
            for place, found in evaluate_all([proposal.arch for proposal in proposals]):
                candidate = _candidate(proposals[place], missing[place], episode, found, goal)
                journal.append(path, candidate)
                candidates.append(candidate)
                finished[candidate.number] = candidate
                progress.update(
                    len(candidates), f"episode {episode + 1}/{options.episodes}: {_note(candidate, candidates)}"
                )
            if not finished:
                break
            ordered = [finished[number] for number in sorted(finished)]
            strategy.tell([Observation(one.arch, one.reward, one.loss) for one in ordered])
    return sorted(candidates, key=lambda candidate: candidate.number)


def _candidate(proposal: Proposal, number: int, episode: int, found: Attempt, goal: Goal) -> Candidate:
    return Candidate(
        number=number,
        episode=episode,
        arch=proposal.arch,
        explored=proposal.explored,
        loss=None if found.failed else found.result.loss,
        latency_ms=goal.latencies[proposal.arch],
        reward=None if found.failed else goal.reward(proposal.arch, found.result.loss),
        predicted_reward=proposal.predicted_reward,
        tokens=found.result.tokens,
        seconds=found.seconds,
        failed=found.failed,
        curve=found.result.curve,
        stopped=found.result.stopped,
    )


def _note(latest: Candidate, candidates: list[Candidate]) -> str:
    """The latest and the best candidate and how many the front has, for the progress display."""
    best = journal.best(candidates)
    shown = (
        f"{latest.arch} failed" if latest.failed else f"{latest.arch} loss {latest.loss:.3f} reward {latest.reward:.3f}"
    )
    if best is None:
        return shown
    points = [(one.loss, one.latency_ms) for one in candidates if one.loss is not None and not one.stopped]
    return f"{shown}; best {best.arch} {best.reward:.3f}; front of {len(pareto_front(points))}"
