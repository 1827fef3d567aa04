"""The result of distilling an architecture, and the functions that give it."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from kdnas.errors import DivergenceError
from kdnas.models.arch import Arch


@dataclass(frozen=True)
class ProxyResult:
    """The result of proxy distillation.

    Args:
        loss: held-out loss: of hidden states the mean over layer pairs, as a fraction of the teacher's variance; of embeddings
            the distance at full width. NaN or infinite if it diverged.
        tokens: training tokens seen, without padding.
        curve: tokens and loss at each checkpoint, the last one included; empty if there was only one.
    """

    loss: float
    tokens: int
    curve: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Attempt:
    """The attempt to distil one architecture.

    Args:
        result: of the distillation; its loss is NaN if it failed.
        failed: the reason, None if it succeeded.
        seconds: wall time.
    """

    result: ProxyResult
    failed: str | None
    seconds: float


Evaluate = Callable[[Arch], ProxyResult]
EvaluateAll = Callable[[Sequence[Arch]], Iterator[tuple[int, Attempt]]]  # indices as they finish, in any order


def attempt(evaluate: Evaluate, arch: Arch) -> Attempt:
    """Distil an architecture; if it diverges or cannot run, the candidate has failed and the search continues."""
    start, failed, result = time.monotonic(), None, ProxyResult(math.nan, 0)
    try:
        result = evaluate(arch)
        if not math.isfinite(result.loss):
            failed = f"the loss is {result.loss}"
    except (RuntimeError, MemoryError, DivergenceError) as error:  # out of memory, a kernel that refuses a shape
        failed = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"
    return Attempt(result, failed, round(time.monotonic() - start, 3))


def one_by_one(evaluate: Evaluate) -> EvaluateAll:
    """Distil in this process, in order."""
    return lambda archs: ((index, attempt(evaluate, arch)) for index, arch in enumerate(archs))
