"""Independent calls in one process per physical core."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from itertools import islice
from multiprocessing import connection, get_context, parent_process
from typing import Any, TypeVar

from kdnas.store.host import physical_cores

Key = TypeVar("Key")
AHEAD = 16  # calls that are queued per process
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def finished(
    work: Callable[..., Any],
    calls: Mapping[Key, tuple[Any, ...]],
    prepare: Callable[..., None] | None = None,
    *given: Any,
) -> Iterator[tuple[Key, Any]]:
    """Keys and results of calls as they finish, in any order.

    Args:
        work: a function at the top of a module.
        calls: key to the arguments of a call.
        prepare: called once in each process, with `given`: what all calls need travels once.
        given: arguments of `prepare`.
    """
    if not calls:
        return
    coming = iter(calls.items())
    pool = ProcessPoolExecutor(
        physical_cores(), get_context("spawn"), initializer=_start_process, initargs=(prepare, given)
    )
    waiting: dict[Any, Key] = {}

    def submit(count: int) -> None:
        for key, arguments in islice(coming, count):
            waiting[pool.submit(work, *arguments)] = key

    try:
        submit(AHEAD * physical_cores())
        while waiting:
            done = wait(waiting, return_when=FIRST_COMPLETED).done
            submit(len(done))
            for future in done:
                yield waiting.pop(future), future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def leave_signals_to_the_parent() -> None:
    """Ignore Ctrl-C in a worker. It reaches the whole process group; a worker killed with a queue's lock blocks the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _end_with_the_parent() -> None:
    """End this process when its parent was killed; the queue of calls stays open, because each process can write to it."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _start_process(prepare: Callable[..., None] | None, given: tuple[Any, ...]) -> None:
    """One thread per process: there is a process on every core. numpy is loaded already and ignores the variable."""
    from threadpoolctl import threadpool_limits

    leave_signals_to_the_parent()
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    os.environ["OMP_NUM_THREADS"] = "1"
    threadpool_limits(1)
    if prepare is not None:
        prepare(*given)
