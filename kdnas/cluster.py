"""Work in parallel on a Ray cluster, one worker per core; if a worker dies, another one takes over its item."""

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Generic, TypeVar

from kdnas.errors import KdnasError
from kdnas.extras import require_extras

LOCAL = "local"
TRIES = 3  # workers that may die on an item before it counts as failed
POLL_SECONDS = 2.0
PATIENCE_SECONDS = 300.0  # without any started worker, until the work stops; large models take a minute to load

Item = TypeVar("Item")
Result = TypeVar("Result")


def require_ray(address: str | None, option: str = "--ray") -> None:
    """Raise KdnasError if a cluster is requested and its package is not installed."""
    if address is not None:
        require_extras(option, ("cluster",))


class _Worker:
    """Works on items one after the other, in its own process with one core."""

    def __init__(self, make: Callable[[], Callable[[Any], Any]]) -> None:
        self._work = make()

    def work(self, item: Any) -> Any:
        return self._work(item)


class Workers(Generic[Item, Result]):
    """Works on items on all cores of a cluster, including cores that join later.

    Args:
        address: `local` starts a cluster on this host, one worker per core; otherwise the address of a running cluster.
        make: makes the function of a worker, in its process.
        dead: the result of an item on which `TRIES` workers died.

    Raises:
        KdnasError: there is no cluster at the address.
    """

    def __init__(
        self, address: str, make: Callable[[], Callable[[Item], Result]], dead: Callable[[Item], Result]
    ) -> None:
        self._address, self._make, self._dead = address, make, dead
        self._idle: list[Any] = []
        self._starting: dict[Any, Any] = {}  # reference that is ready when the worker is, to the worker
        self._busy: dict[Any, tuple[Any, int]] = {}  # reference to a result, to its worker and the item's index

    def __enter__(self) -> "Workers[Item, Result]":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
        import ray

        from kdnas.store.host import physical_cores

        self._ray = ray
        # Without an address, Ray would join a cluster of another program on this host, and end with it.
        options: dict[str, Any] = {"address": LOCAL, "num_cpus": physical_cores(), "include_dashboard": False}
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

    def __call__(self, items: Sequence[Item]) -> Iterator[tuple[int, Result]]:
        """Indices of the items and their results as they finish, in any order."""
        coming, deaths, alone = list(range(len(items)))[::-1], [0] * len(items), 0.0
        while coming or self._busy:
            self._start_missing(len(coming) + len(self._busy))
            while coming and self._idle:
                worker, index = self._idle.pop(), coming.pop()
                self._busy[worker.work.remote(items[index])] = (worker, index)
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
                        coming.append(index)
                        continue
                    found = self._dead(items[index])
                yield index, found

    def _start_missing(self, work: int) -> None:
        """A worker for each core of the cluster, whose nodes join and leave, but not more than there are items."""
        there = len(self._idle) + len(self._starting) + len(self._busy)
        for _ in range(min(work, int(self._ray.cluster_resources().get("CPU", 0))) - there):
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
