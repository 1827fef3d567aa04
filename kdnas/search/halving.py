"""Asynchronous successive halving (Li et al., arXiv 1810.05934), by stopping: most candidates are not distilled to the end.

After a share of the budget a candidate goes on only if its reward is among the best 1/eta of all that were looked at there. What
a stopped one would have reached is estimated from those that went on: its loss times the median ratio of their last loss to that
look.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from statistics import median
from typing import Protocol

from kdnas.models.arch import Arch
from kdnas.search.goal import Goal
from kdnas.search.journal import Candidate
from kdnas.search.outcome import ProxyResult


class Distils(Protocol):
    """What gives losses on the way: `kdnas.search.proxy.Proxy` and `kdnas.search.recording.Recording`."""

    def curve(self, arch: Arch, marks: Sequence[float]) -> Iterator[ProxyResult]:
        """Held-out loss after these shares of the budget, each when it is reached."""
        ...


class Halving:
    """Evaluates architectures, most of them on a part of the budget.

    Args:
        distils: gives losses on the way.
        goal: what a loss is worth.
        eta: one in so many goes on at each look, and a look is at that part of the budget of the next one.
        looks: before the end.
    """

    def __init__(self, distils: Distils, goal: Goal, eta: int, looks: int) -> None:
        self._distils, self._goal, self._eta = distils, goal, eta
        self.marks = [float(eta) ** -number for number in range(looks, 0, -1)] + [1.0]
        self._rewards: list[list[float]] = [[] for _ in self.marks]
        self._ratios: list[list[float]] = [[] for _ in self.marks]  # last loss by that of the look

    def recall(self, candidates: Iterable[Candidate]) -> None:
        """Know what an interrupted run had looked at."""
        for candidate in candidates:
            ended_early = candidate.stopped or candidate.failed is not None
            self._learn(candidate.arch, [loss for _, loss in candidate.curve], ended_early)

    def __call__(self, arch: Arch) -> ProxyResult:
        """Distil an architecture as far as it is worth it."""
        curve: list[tuple[int, float]] = []
        stopped = False
        for look, found in enumerate(self._distils.curve(arch, self.marks)):
            if not math.isfinite(found.loss):
                self._learn(arch, [loss for _, loss in curve], stopped=True)
                return ProxyResult(found.loss, found.tokens, tuple(curve))
            curve.append((found.tokens, found.loss))
            if look < len(self.marks) - 1 and not self._goes_on(look, self._goal.reward(arch, found.loss)):
                stopped = True
                break
        losses = [loss for _, loss in curve]
        estimate = self._expected(losses) if stopped else losses[-1]
        self._learn(arch, losses, stopped)
        return ProxyResult(estimate, curve[-1][0], tuple(curve), stopped)

    def _goes_on(self, look: int, reward: float) -> bool:
        """Whether a reward is among the best 1/eta, itself included; the first ones all go on."""
        seen = sorted([*self._rewards[look], reward], reverse=True)
        return len(seen) < self._eta or reward >= seen[max(1, len(seen) // self._eta) - 1]

    def _expected(self, losses: list[float]) -> float:
        ratios = self._ratios[len(losses) - 1]
        return losses[-1] * (median(ratios) if ratios else 1.0)

    def _learn(self, arch: Arch, losses: list[float], stopped: bool) -> None:
        for look, loss in enumerate(losses):
            self._rewards[look].append(self._goal.reward(arch, loss))
            if not stopped:
                self._ratios[look].append(losses[-1] / loss)
