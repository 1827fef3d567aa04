"""The ask/tell protocol: the search can run any strategy, and any strategy can be replayed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from kdnas.models.arch import Arch


@dataclass(frozen=True)
class Proposal:
    """An architecture to evaluate next.

    Args:
        arch: the architecture.
        explored: chosen at random.
        predicted_reward: the reward that the strategy expects; None before it has a model.
    """

    arch: Arch
    explored: bool
    predicted_reward: float | None


@dataclass(frozen=True)
class Observation:
    """The reward and the loss of an evaluated architecture; None if its evaluation failed."""

    arch: Arch
    reward: float | None
    loss: float | None = None


class Training(Protocol):
    """How the controller is trained; `SearchOptions` documents the fields."""

    @property
    def controller_lr(self) -> float: ...

    @property
    def controller_epochs(self) -> int: ...

    @property
    def controller_memory(self) -> str: ...

    @property
    def controller_update(self) -> str: ...

    @property
    def controller_targets(self) -> str: ...

    @property
    def controller_square_decay(self) -> float: ...

    @property
    def controller_lr_decay(self) -> float: ...

    @property
    def controller_decay_each(self) -> str: ...


class Settings(Training, Protocol):
    """The options of a search that strategies read; `SearchOptions` documents them."""

    @property
    def strategy(self) -> str: ...

    @property
    def seed(self) -> int: ...

    @property
    def epsilon_start(self) -> float: ...

    @property
    def epsilon_decay(self) -> float: ...

    @property
    def epsilon_min(self) -> float: ...

    @property
    def epsilon_draw(self) -> str: ...


class Strategy(Protocol):
    """Proposes the candidates of an episode, and learns from their results when all are evaluated.

    Its proposals depend only on its seed and on the results that it was given, so a killed search gets the same proposals
    when the journal is replayed.
    """

    def ask(self, count: int, evaluated: Sequence[Arch] = ()) -> list[Proposal]:
        """The rest of this episode: `count` candidates minus those that were evaluated before an interruption.

        Fewer if the space has no more. No architecture is proposed twice.
        """
        ...

    def tell(self, observations: Sequence[Observation]) -> None:
        """Results of the whole episode, in order; the next `ask` is for the next episode."""
        ...
