"""The output of a filter run in an object store: S3 and stores with its interface, Google Cloud Storage, Azure.

A file is created only if it is absent by a conditional put (`If-None-Match: *` on S3, generation 0 on Google Cloud Storage),
which fsspec names `pipe_file(mode="create")`. A name that is changed is a copy in the store, then a removal.
"""

import errno
import glob
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any, BinaryIO, cast
from uuid import uuid4

from kdnas.errors import UsageError
from kdnas.filtering.remote import filesystem, named_errors
from kdnas.filtering.store import StoreError

# Where `mode="create"` is one atomic request. Elsewhere fsspec asks first and writes then, so that two writers may both succeed.
CONDITIONAL = ("s3", "s3a", "gs", "gcs", "az", "abfs")
BLOCK_BYTES = 2**23  # part of an upload, which is held in memory
TRIES, WAIT_SECONDS = 5, 0.5  # of a put while another one of the same name is in progress


class ObjectFile:
    """An upload in progress, see `kdnas.filtering.store.NewFile`. A killed one leaves parts that the store does not show."""

    def __init__(self, file: Any, what: str) -> None:
        self._file, self._what = file, what

    def write(self, data: bytes) -> int:
        with named_errors(self._what, StoreError):
            return int(self._file.write(data))

    def finish(self) -> None:
        with named_errors(self._what, StoreError):
            self._file.close()

    def abandon(self) -> None:
        if not self._file.closed:
            self._file.closed = True  # else it would be completed when it is collected
            with named_errors(self._what, StoreError):
                self._file.discard()


class ObjectStore:
    """Objects below a URL, see `kdnas.filtering.store.Store`.

    Args:
        url: the URL, as in `s3://bucket/run`.

    Raises:
        UsageError: the kind of store is not supported, or the URL has no bucket.
        KdnasError: a package is missing.
    """

    def __init__(self, url: str) -> None:
        protocol, _, place = url.partition("://")
        self.url = f"{protocol}://{place.strip('/')}"
        self._what = f"output '{self.url}'"
        if protocol not in CONDITIONAL:
            allowed = ", ".join(f"{name}://" for name in CONDITIONAL)
            raise UsageError(
                f"{self._what}: this kind of store cannot create a file only if it is absent; give a folder or {allowed}"
            )
        if glob.has_magic(url):
            raise UsageError(f"{self._what}: *, ? and [ are not allowed in the name of an output")
        if not place.strip("/"):
            raise UsageError(f"{self._what}: give a bucket and a folder, as in s3://bucket/run")
        self._system, path = filesystem(self.url, self._what)
        self._root = path.strip("/")

    def require_usable(self) -> None:
        probe = f"probe-{uuid4().hex}"
        try:
            self.create(probe, b"{}")
            if self.create(probe, b"{}"):
                raise UsageError(
                    f"{self._what}: this store replaces an object that should only be created if it is absent; "
                    "two processes could write one unit. Give another store, or a folder"
                )
        finally:
            self.remove(probe)

    def create(self, name: str, data: bytes) -> bool:
        with named_errors(self._what, StoreError):
            for left in reversed(range(TRIES)):
                try:
                    self._system.pipe_file(self._path(name), data, mode="create")
                    return True
                except OSError as error:  # S3 answers a refused condition with errors of several kinds
                    if isinstance(error, FileExistsError) or self._exists(name):
                        return False
                    if error.errno != errno.EBUSY or not left:
                        raise
                time.sleep(WAIT_SECONDS)
        raise AssertionError("unreachable")

    def write(self, name: str, data: bytes) -> None:
        with named_errors(self._what, StoreError):
            self._system.pipe_file(self._path(name), data)

    def new_file(self, name: str) -> ObjectFile:
        with named_errors(self._what, StoreError):
            return ObjectFile(self._system.open(self._path(name), "wb", block_size=BLOCK_BYTES), self._what)

    def read(self, name: str) -> bytes | None:
        with named_errors(self._what, StoreError):
            try:
                return bytes(self._system.cat_file(self._path(name)))
            except FileNotFoundError:
                return None

    def read_all(self, folder: str) -> dict[str, bytes]:
        paths = [self._path(f"{folder}/{name}") for name in self.names(folder)]
        with named_errors(self._what, StoreError):
            found = self._system.cat(paths) if paths else {}  # many requests at a time
        return {path.rpartition("/")[2]: bytes(data) for path, data in found.items()}

    def open(self, name: str) -> BinaryIO:
        self._system.invalidate_cache()
        return cast(BinaryIO, self._system.open(self._path(name), "rb"))

    def names(self, folder: str = "") -> list[str]:
        start = self._path(folder) + "/"
        with named_errors(self._what, StoreError):
            self._system.invalidate_cache()
            try:
                found = self._system.ls(start, detail=False)
            except FileNotFoundError:
                return []
        return sorted({path[len(start) :].strip("/") for path in found if path.startswith(start)} - {""})

    def move(self, source: str, target: str) -> None:
        with named_errors(self._what, StoreError):
            self._system.invalidate_cache()
            try:
                self._system.cp_file(self._path(source), self._path(target))
            except FileNotFoundError:
                return
        self.remove(source)

    def remove(self, name: str) -> None:
        with named_errors(self._what, StoreError):
            self._system.invalidate_cache()
            try:
                self._system.rm(self._path(name), recursive=True)
            except FileNotFoundError:
                return

    def locked(self, name: str, wait: bool = False) -> AbstractContextManager[None]:
        return nullcontext()

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _exists(self, name: str) -> bool:
        self._system.invalidate_cache()
        return bool(self._system.exists(self._path(name)))
