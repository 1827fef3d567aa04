"""The episodes of a search: propose, distil, learn. Every finished candidate is written to the journal at once."""

from pathlib import Path

from kdnas.search import journal
from kdnas.search.goal import Goal
from kdnas.search.journal import Candidate
from kdnas.search.options import SearchOptions
from kdnas.search.outcome import Attempt, EvaluateAll
from kdnas.search.pareto import pareto_front
from kdnas.search.strategies import Observation, Proposal, Strategy
from kdnas.store.progress import stage


def explore(
    path: Path, strategy: Strategy, evaluate_all: EvaluateAll, goal: Goal, options: SearchOptions
) -> list[Candidate]:
    """Run the episodes; candidates that an earlier run finished come from the journal.

    Args:
        path: the journal; each candidate is appended to it as soon as it is finished.
        strategy: proposes and learns.
        evaluate_all: distils architectures.
        goal: latencies and reward.
        options: episodes and candidates per episode.

    Returns:
        All candidates, in the order in which they were proposed; fewer than requested if the space is exhausted.
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
            for index, found in evaluate_all([proposal.arch for proposal in proposals]):
                candidate = _candidate(proposals[index], missing[index], episode, found, goal)
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
    )


def _note(latest: Candidate, candidates: list[Candidate]) -> str:
    """The latest candidate, the best one and the size of the front, for the progress display."""
    best = journal.best(candidates)
    shown = (
        f"{latest.arch} failed" if latest.failed else f"{latest.arch} loss {latest.loss:.3f} reward {latest.reward:.3f}"
    )
    if best is None:
        return shown
    points = [(one.loss, one.latency_ms) for one in candidates if one.loss is not None]
    return f"{shown}; best {best.arch} {best.reward:.3f}; front of {len(pareto_front(points))}"
