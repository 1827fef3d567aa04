"""Candidates in parallel on a Ray cluster, one worker per core; if a worker dies, another one takes over."""

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from kdnas.errors import KdnasError
from kdnas.extras import require_extras
from kdnas.models.arch import Arch
from kdnas.search.outcome import Attempt, Evaluate, EvaluateAll, ProxyResult, attempt, one_by_one

LOCAL = "local"
TRIES = 3  # workers that may die on a candidate before it counts as failed
POLL_SECONDS = 2.0
PATIENCE_SECONDS = 300.0  # without any started worker, until the search stops; large teachers take a minute to load


def require_ray(ray: str | None) -> None:
    """Raise KdnasError if a cluster is requested and its package is not installed."""
    if ray is not None:
        require_extras("--ray", ("cluster",))


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
    with Workers(ray, make) as workers:
        yield workers


class _Worker:
    """Distils candidates sequentially, in its own process with one core."""

    def __init__(self, make: Callable[[], Evaluate]) -> None:
        self._evaluate = make()

    def attempt(self, arch: Arch) -> Attempt:
        return attempt(self._evaluate, arch)


class Workers:
    """Evaluates candidates on all cores of a cluster, including cores that join later; an `EvaluateAll`.

    Args:
        address: `local` starts a cluster on this host, one worker per core; otherwise the address of a running cluster.
        make: makes the evaluator of a worker, in its process.

    Raises:
        KdnasError: there is no cluster at the address.
    """

    def __init__(self, address: str, make: Callable[[], Evaluate]) -> None:
        self._address, self._make = address, make
        self._idle: list[Any] = []
        self._starting: dict[Any, Any] = {}  # reference that is ready when the worker is, to the worker
        self._busy: dict[Any, tuple[Any, int]] = {}  # reference to a result, to its worker and the candidate's index

    def __enter__(self) -> "Workers":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
        import ray

        from kdnas.store.host import physical_cores

        self._ray = ray
        options: dict[str, Any] = {"num_cpus": physical_cores(), "include_dashboard": False}
        if self._address != LOCAL:
            options = {"address": self._address}
        handler = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
        except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise KdnasError(
                f"ray: no cluster at '{self._address}' ({reason}); give its address, or '{LOCAL}'"
            ) from error
        if threading.current_thread() is threading.main_thread() and handler is not None:
            signal.signal(signal.SIGTERM, handler)  # Ray's handler prints a stack trace and ends the process at once
        self._remote = ray.remote(num_cpus=1)(_Worker)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ray.shutdown()

    def __call__(self, archs: Sequence[Arch]) -> Iterator[tuple[int, Attempt]]:
        """Indices of the architectures as they finish, in any order."""
        coming, deaths, alone = list(range(len(archs))), [0] * len(archs), 0.0
        while coming or self._busy:
            self._start_missing()
            while coming and self._idle:
                worker, index = self._idle.pop(), coming.pop(0)
                self._busy[worker.attempt.remote(archs[index])] = (worker, index)
            waiting = [*self._starting, *self._busy]
            ready = self._ray.wait(waiting, timeout=POLL_SECONDS)[0] if waiting else []
            alone = 0.0 if self._busy or ready else alone + POLL_SECONDS
            if alone > PATIENCE_SECONDS:
                raise KdnasError("ray: no worker has started for five minutes; run the same command to resume")
            for reference in ready:
                if reference in self._starting:
                    self._greet(reference)
                    continue
                worker, index = self._busy.pop(reference)
                try:
                    found = self._ray.get(reference)
                    self._idle.append(worker)
                except self._ray.exceptions.RayActorError:
                    deaths[index] += 1
                    if deaths[index] < TRIES:
                        coming.insert(0, index)
                        continue
                    found = Attempt(ProxyResult(float("nan"), 0), f"its worker died {TRIES} times", 0.0)
                yield index, found

    def _start_missing(self) -> None:
        """A worker for each core of the cluster, whose nodes join and leave."""
        there = len(self._idle) + len(self._starting) + len(self._busy)
        for _ in range(int(self._ray.cluster_resources().get("CPU", 0)) - there):
            worker: Any = self._remote.remote(self._make)
            self._starting[worker.__ray_ready__.remote()] = worker

    def _greet(self, reference: Any) -> None:
        worker = self._starting.pop(reference)
        try:
            self._ray.get(reference)
        except self._ray.exceptions.RayActorError as error:
            if "__init__" in str(error) or "creation task" in str(error):
                raise KdnasError(f"ray: a worker cannot start ({_last_line(error)})") from error
            return  # its node left
        self._idle.append(worker)


def _last_line(error: BaseException) -> str:
    return [line for line in str(error).splitlines() if line.strip()][-1].strip()
