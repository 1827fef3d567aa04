"""Candidates in parallel on a Ray cluster, one worker per core; if a worker dies, another one takes over."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from kdnas.cluster import TRIES, Workers
from kdnas.models.arch import Arch
from kdnas.search.outcome import Attempt, Evaluate, EvaluateAll, ProxyResult, attempt, one_by_one


@contextmanager
def all_of(make: Callable[[], Evaluate], here: Evaluate, ray: str | None) -> Iterator[EvaluateAll]:
    """Distils architectures one by one in this process, or in parallel on a Ray cluster.

    Args:
        make: makes the evaluator of a worker, in its process.
        here: the evaluator of this process.
        ray: `local`, or the address of a cluster; None distils here.
    """
    if ray is None:
        yield one_by_one(here)
        return
    with candidate_workers(ray, make) as workers:
        yield workers


def candidate_workers(address: str, make: Callable[[], Evaluate]) -> Workers[Arch, Attempt]:
    """Workers that distil candidates; one on which too many workers died has failed.

    Args:
        address: `local`, or the address of a cluster.
        make: makes the evaluator of a worker, in its process.
    """
    return Workers(address, partial(_attempts, make), _dead)


def _attempts(make: Callable[[], Evaluate]) -> Callable[[Arch], Attempt]:
    return partial(attempt, make())


def _dead(_arch: Arch) -> Attempt:
    return Attempt(ProxyResult(math.nan, 0), f"its worker died {TRIES} times", 0.0)
