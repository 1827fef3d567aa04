"""What to try next: ask/tell, so that the search can run any strategy and any strategy can be replayed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from kdnas.models.arch import Arch


@dataclass(frozen=True)
class Proposal:
    """What to evaluate next.

    Args:
        arch: the architecture.
        explored: picked at random.
        predicted_reward: what the strategy expects of it; None where it knows nothing yet.
    """

    arch: Arch
    explored: bool
    predicted_reward: float | None


@dataclass(frozen=True)
class Observation:
    """What came of an architecture: its reward and its loss, None where its evaluation failed."""

    arch: Arch
    reward: float | None
    loss: float | None = None


class Strategy(Protocol):
    """Proposes the candidates of an episode, and learns from them when all are evaluated.

    Everything that it proposes follows from its seed and from what it was told, so a search that was killed gets the same
    proposals by telling the journal again.
    """

    def ask(self, count: int, evaluated: Sequence[Arch] = ()) -> list[Proposal]:
        """The rest of this episode: `count` candidates less those that were evaluated before an interruption.

        Fewer where the space has no more; nothing that was asked or told before.
        """
        ...

    def tell(self, observations: Sequence[Observation]) -> None:
        """Results of the whole episode, in order; the next `ask` is for the next episode."""
        ...
