"""One run of a strategy on recorded losses."""

from collections.abc import Mapping

from kdnas.models.arch import Arch, arch_id
from kdnas.search.goal import Goal
from kdnas.search.options import SearchOptions
from kdnas.search.strategies import Observation, make_strategy, with_hint

RUNS = "runs.jsonl"


def run_once(goal: Goal, losses: Mapping[Arch, float], options: SearchOptions, hint: bool = False) -> list[int]:
    """Ids of the architectures that one strategy proposes, in order; with a hint, those nearest to the teacher first."""
    strategy, proposed = make_strategy(goal, options), []
    if hint:
        strategy = with_hint(strategy, goal, options.seed)
    for _ in range(options.episodes):
        archs = [proposal.arch for proposal in strategy.ask(options.candidates_per_episode)]
        if not archs:
            break
        strategy.tell([Observation(arch, goal.reward(arch, losses[arch]), losses[arch]) for arch in archs])
        proposed += [arch_id(arch) for arch in archs]
    return proposed
