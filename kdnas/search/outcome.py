"""What distilling an architecture said of it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ProxyResult:
    """What proxy distillation says about an architecture.

    Args:
        loss: held-out loss, mean over layer pairs, as a share of the teacher's variance; NaN or infinite where it diverged.
        tokens: real training tokens seen.
        curve: tokens and loss at each look on the way, the last one included; empty where there was one look alone.
    """

    loss: float
    tokens: int
    curve: tuple[tuple[int, float], ...] = ()
