"""The baseline strategy: a random order."""

from collections.abc import Sequence

import numpy as np

from kdnas.models.arch import Arch
from kdnas.search.strategies.protocol import Observation, Proposal


class RandomOrder:
    """See `Strategy`. Each architecture once, in an order that the seed decides."""

    def __init__(self, states: Sequence[Arch], seed: int) -> None:
        self._coming = [states[index] for index in np.random.default_rng(seed).permutation(len(states))]

    def ask(self, count: int, evaluated: Sequence[Arch] = ()) -> list[Proposal]:
        """The next architectures in the order."""
        done = set(evaluated)
        return [Proposal(arch, True, None) for arch in self._coming[:count] if arch not in done]

    def tell(self, observations: Sequence[Observation]) -> None:
        """Removes them from the order."""
        evaluated = {observation.arch for observation in observations}
        self._coming = [arch for arch in self._coming if arch not in evaluated]
