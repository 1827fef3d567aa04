"""Regularised evolution (Real et al., arXiv 1802.01548): the oldest are removed, tournament winners are mutated."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from kdnas.models.arch import FIELDS, Arch
from kdnas.search.strategies.protocol import Observation, Proposal

POPULATION, TOURNAMENT = 30, 8
TRIES = 50  # mutations without a new architecture before a random one is proposed


class Evolution:
    """See `Strategy`. A child differs from its parent in one field; the first candidates are random.

    Args:
        states: architectures that may be proposed.
        seed: seed of the first candidates, the tournaments and the mutations.
    """

    def __init__(self, states: Sequence[Arch], seed: int) -> None:
        self._states, self._seed, self._episode = list(states), seed, 0
        self._values = {name: sorted({getattr(arch, name) for arch in states}) for name in FIELDS}
        self._unexplored = dict.fromkeys(states)
        self._population: list[Observation] = []
        self._told = 0

    def ask(self, count: int, evaluated: Sequence[Arch] = ()) -> list[Proposal]:
        """Children of tournament winners; random architectures until the population is full."""
        left, proposals = dict(self._unexplored), []
        for number in range(count):
            if not left:
                break
            rng = np.random.default_rng([self._seed, self._episode, number])
            child = self._child(rng, left) if self._told + number >= POPULATION and self._population else None
            arch = child or list(left)[int(rng.integers(len(left)))]
            left.pop(arch)
            proposals.append(Proposal(arch, child is None, None))
        return [proposal for proposal in proposals if proposal.arch not in set(evaluated)]

    def tell(self, observations: Sequence[Observation]) -> None:
        """Add the results, and remove the oldest from the population."""
        for observation in observations:
            self._unexplored.pop(observation.arch, None)
        living = [observation for observation in observations if observation.reward is not None]
        self._population = [*self._population, *living][-POPULATION:]
        self._told += len(observations)
        self._episode += 1

    def _child(self, rng: np.random.Generator, left: dict[Arch, None]) -> Arch | None:
        for _ in range(TRIES):
            group = rng.choice(len(self._population), min(TOURNAMENT, len(self._population)), replace=False)
            parent = max((self._population[int(index)] for index in group), key=lambda one: one.reward or 0.0).arch
            name = FIELDS[int(rng.integers(len(FIELDS)))]
            others = [value for value in self._values[name] if value != getattr(parent, name)]
            if others:
                arch = replace(parent, **{name: others[int(rng.integers(len(others)))]})
                if arch in left:
                    return arch
        return None
