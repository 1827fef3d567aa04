"""The hint that students resemble their teacher: the architectures that are nearest to it, first or alone.

A student starts with its teacher's layers, so its teacher's shape is a good guess before anything was distilled. A strategy
that knows this is compared fairly only with strategies that get the same first candidates.
"""

from collections.abc import Sequence

import numpy as np

from kdnas.models.arch import Arch
from kdnas.search.design import gower, nearest
from kdnas.search.goal import Goal
from kdnas.search.strategies.protocol import Observation, Proposal, Strategy

NEAREST = 4  # candidates of a hint


def nearest_first(goal: Goal, seed: int, count: int | None = None) -> list[Arch]:
    """The architectures in the order of their distance to the teacher's shape (Gower's), the nearest first.

    Args:
        goal: architectures, and the teacher's shape; without it all distances are equal.
        seed: breaks ties.
        count: only so many; None gives all.
    """
    states, left = goal.states, np.ones(len(goal.latencies), dtype=bool)
    distance = gower(states, goal.teacher) if goal.teacher else np.zeros(len(states))
    ordered = []
    for number in range(min(len(states), count if count is not None else len(states))):
        # The generators of the surrogate's first episode, so that it draws the same ones.
        index = nearest(distance, left, np.random.default_rng([seed, 0, number]))
        left[index] = False
        ordered.append(states[index])
    return ordered


class Nearest:
    """See `Strategy`. A baseline that learns nothing: the nearest architectures to the teacher's shape first."""

    def __init__(self, goal: Goal, seed: int) -> None:
        self._coming = nearest_first(goal, seed)

    def ask(self, count: int, evaluated: Sequence[Arch] = ()) -> list[Proposal]:
        """The next architectures in the order."""
        done = set(evaluated)
        return [Proposal(arch, False, None) for arch in self._coming[:count] if arch not in done]

    def tell(self, observations: Sequence[Observation]) -> None:
        """Removes them from the order."""
        evaluated = {observation.arch for observation in observations}
        self._coming = [arch for arch in self._coming if arch not in evaluated]


class Hinted:
    """See `Strategy`. Another strategy that starts with given candidates; it learns their results too.

    Args:
        strategy: proposes all other candidates.
        hint: the first candidates. If an episode has fewer, the next one continues with the rest.
    """

    def __init__(self, strategy: Strategy, hint: Sequence[Arch]) -> None:
        self._strategy, self._hint = strategy, list(hint)

    def ask(self, count: int, evaluated: Sequence[Arch] = ()) -> list[Proposal]:
        """The rest of the hint, filled up with proposals of the strategy."""
        others = self._strategy.ask(count, self._hint)
        proposals = [*(Proposal(arch, False, None) for arch in self._hint), *others][:count]
        return [proposal for proposal in proposals if proposal.arch not in set(evaluated)]

    def tell(self, observations: Sequence[Observation]) -> None:
        """Passed on; candidates of the hint are not proposed again."""
        self._strategy.tell(observations)
        told = {observation.arch for observation in observations}
        self._hint = [arch for arch in self._hint if arch not in told]
