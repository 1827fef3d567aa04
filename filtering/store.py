"""Where a filter run writes: a folder of a disk, or a prefix of an object store. Only the two kinds of store know the difference.

Names are relative to the output, with slashes: `commits/00000/0000001.json`. What a method has written is whole and durable
when it returns.
"""

import json
from contextlib import AbstractContextManager
from typing import Any, BinaryIO, Protocol

from kdnas.errors import KdnasError


class StoreError(KdnasError):
    """The output cannot be read or written, so that no other unit can be committed either."""


class NewFile(Protocol):
    """A file in progress; nobody sees it before it is finished."""

    def write(self, data: bytes) -> int:
        """Append bytes; returns their number."""

    def finish(self) -> None:
        """Make the file durable and visible."""

    def abandon(self) -> None:
        """Close the file and leave nothing."""


class Store(Protocol):
    """The output of one run.

    Attributes:
        url: path or URL, as it was given.
    """

    url: str

    def require_usable(self) -> None:
        """Check that a new run can be written.

        Raises:
            UsageError: it is a file, or a store that cannot create an object only if it is absent.
            StoreError: there is no such bucket, or no access to it.
        """

    def create(self, name: str, data: bytes) -> bool:
        """Write a file unless it exists; returns False if it existed, also by a race: of several writers one creates it.

        It may also be False for the writer that created it, if an answer was lost on the network: read the file to know.
        """

    def write(self, name: str, data: bytes) -> None:
        """Write or replace a file."""

    def new_file(self, name: str) -> NewFile:
        """A new file of any size, under a name that nobody else uses."""

    def read(self, name: str) -> bytes | None:
        """Content of a file; None if it does not exist."""

    def read_all(self, folder: str) -> dict[str, bytes]:
        """Content of the files directly in a folder, by their names in it."""

    def open(self, name: str) -> BinaryIO:
        """A file, open for reading.

        Raises:
            FileNotFoundError: it does not exist.
        """

    def names(self, folder: str = "") -> list[str]:
        """Sorted names of the files and folders directly in a folder; empty if it does not exist."""

    def move(self, source: str, target: str) -> None:
        """Give a file another name; nothing happens if it is gone, because another process moved it."""

    def remove(self, name: str) -> None:
        """Remove a file or a folder with all its content, if it exists."""

    def locked(self, name: str, wait: bool = False) -> AbstractContextManager[None]:
        """Keep other processes from the same work, where the store has locks; without, they lose time and nothing else.

        Args:
            name: name of the lock, which ends with `.lock`.
            wait: wait for a process that has the lock; without, that is an error.

        Raises:
            KdnasError: another process has the lock.
        """


def create_json(store: Store, name: str, value: Any) -> bool:
    """As `Store.create`, for a JSON value."""
    return store.create(name, json.dumps(value).encode())


def read_json(store: Store, name: str) -> Any:
    """The value of a JSON file; None if it does not exist."""
    data = store.read(name)
    return None if data is None else json.loads(data)
