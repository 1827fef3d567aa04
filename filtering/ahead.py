"""Run an iterator in a thread, a few items ahead of its reader."""

from collections.abc import Iterable, Iterator
from queue import Full, Queue
from threading import Event, Thread
from typing import Any, TypeVar

Item = TypeVar("Item")
DEPTH = 1  # a chunk of long documents may take many megabytes
WAIT_SECONDS = 0.1


def ahead(items: Iterable[Item], depth: int = DEPTH) -> Iterator[Item]:
    """The items in order; up to `depth` of them are made before they are read. An error is raised where it belongs."""
    queue: Queue[tuple[Any, BaseException | None, bool]] = Queue(depth)
    stop = Event()

    def put(item: Any, error: BaseException | None = None, last: bool = False) -> None:
        while not stop.is_set():
            try:
                queue.put((item, error, last), timeout=WAIT_SECONDS)
                return
            except Full:
                continue

    def fill() -> None:
        iterator = iter(items)
        try:
            for item in iterator:
                put(item)
                if stop.is_set():
                    break
            put(None, last=True)
        except BaseException as error:
            put(None, error, True)
        finally:
            if hasattr(iterator, "close"):
                iterator.close()

    thread = Thread(target=fill, daemon=True)
    thread.start()
    try:
        while True:
            item, error, last = queue.get()
            if error is not None:
                raise error
            if last:
                return
            yield item
    finally:
        stop.set()
        thread.join()
