"""The goal of a search: the allowed architectures, their latency and size, and the reward of a loss."""

from dataclasses import dataclass, field

from kdnas.models.arch import Arch
from kdnas.search.reward import reward


@dataclass(frozen=True)
class Goal:
    """The allowed architectures and how candidates are rewarded.

    Args:
        latencies: milliseconds of each architecture that may be proposed.
        teacher_latency_ms: the teacher's latency.
        alpha: exponent of Eq. 4; 0 ranks by the loss alone.
        beta: factor of Eq. 4.
        megabytes: size of each architecture's weights.
        front: search for the front of loss, latency and memory instead of the best reward.
        teacher: shape of the teacher, if known.
        above_one: of Eq. 4, for a loss above 1.
    """

    latencies: dict[Arch, float]
    teacher_latency_ms: float
    alpha: float
    beta: float
    megabytes: dict[Arch, float] = field(default_factory=dict)
    front: bool = False
    teacher: Arch | None = None
    above_one: str = "divide"

    @property
    def states(self) -> list[Arch]:
        """Architectures that may be proposed, in the order of their ids."""
        return list(self.latencies)

    @property
    def worst(self) -> tuple[float, float, float]:
        """Reference point of the hypervolume: a loss of 1, the teacher's latency, 1 % more memory than the largest model."""
        return 1.0, self.teacher_latency_ms, 1.01 * max(self.megabytes.values(), default=1.0)

    def point(self, arch: Arch, loss: float) -> tuple[float, float, float]:
        """Loss, latency and memory, each to be minimised."""
        return loss, self.latencies[arch], self.megabytes.get(arch, 0.0)

    def reward(self, arch: Arch, loss: float) -> float:
        """Eq. 4."""
        return reward(loss, self.latencies[arch], self.teacher_latency_ms, self.alpha, self.beta, self.above_one)
