"""Run an iterator in a thread, a few items ahead of its reader, and bound the bytes between the first and the last of a chain."""

from collections.abc import Iterable, Iterator
from queue import Full, Queue
from threading import Condition, Event, Thread
from typing import Any, Protocol, TypeVar


class Sized(Protocol):
    """Something that takes memory."""

    @property
    def bytes(self) -> int:
        """Its size."""


Item = TypeVar("Item")
Large = TypeVar("Large", bound=Sized)
DEPTH = 1
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
                del item  # the next one may take as much memory
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
            del item
    finally:
        stop.set()
        thread.join()


class ByteLimit:
    """Bounds the bytes of the items between two places of a chain of iterators in threads.

    Args:
        most: while so many bytes are between the places, no further item is taken.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._inside = 0
        self._closed = False
        self._changed = Condition()

    def enter(self, items: Iterable[Large]) -> Iterator[Large]:
        """The items; each is taken from `items` when there is room."""
        for item in items:
            with self._changed:
                self._inside += item.bytes
            yield item
            del item
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._inside < self._most)

    def leave(self, size: int) -> None:
        """Make room: an item of this size has arrived."""
        with self._changed:
            self._inside -= size
            self._changed.notify_all()

    def close(self) -> None:
        """Let all items pass: nobody waits for them any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
