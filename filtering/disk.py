"""The output of a filter run in a folder of a file system with hard links."""

import errno
import os
import shutil
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from kdnas.errors import KdnasError, UsageError
from kdnas.store.disk import locked
from kdnas.store.json_files import fsync_folder

SCRATCH = ".tmp"


class DiskFile:
    """A new file, see `kdnas.filtering.store.NewFile`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("xb")

    def write(self, data: bytes) -> int:
        return self._file.write(data)

    def finish(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        fsync_folder(self._path.parent)

    def abandon(self) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)


class DiskStore:
    """A folder, see `kdnas.filtering.store.Store`.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self._path, self.url = path, str(path)

    def require_usable(self) -> None:
        if self._path.exists() and not self._path.is_dir():
            raise UsageError(f"output '{self.url}': this is a file; give a folder")

    def create(self, name: str, data: bytes) -> bool:
        path = self._made(name)
        scratch = _written(path, data)
        try:
            os.link(scratch, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
                raise
            raise KdnasError(
                f"output '{path.parent}': this file system has no hard links; give a folder on another one"
            ) from error
        finally:
            scratch.unlink()
        fsync_folder(path.parent)
        return True

    def write(self, name: str, data: bytes) -> None:
        path = self._made(name)
        os.replace(_written(path, data), path)
        fsync_folder(path.parent)

    def new_file(self, name: str) -> DiskFile:
        return DiskFile(self._made(name))

    def read(self, name: str) -> bytes | None:
        try:
            return (self._path / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def read_all(self, folder: str) -> dict[str, bytes]:
        return {name: (self._path / folder / name).read_bytes() for name in self.names(folder)}

    def open(self, name: str) -> BinaryIO:
        return (self._path / name).open("rb")

    def names(self, folder: str = "") -> list[str]:
        try:
            return sorted(name for name in os.listdir(self._path / folder) if not name.endswith(SCRATCH))
        except FileNotFoundError:
            return []

    def move(self, source: str, target: str) -> None:
        path = self._made(target)
        try:
            os.replace(self._path / source, path)
        except FileNotFoundError:
            return
        fsync_folder(path.parent)

    def remove(self, name: str) -> None:
        path = self._path / name
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

    def locked(self, name: str, wait: bool = False) -> AbstractContextManager[None]:
        return locked(self._path / name, wait)

    def _made(self, name: str) -> Path:
        """The path of a file, whose folder is made."""
        path = self._path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def _written(path: Path, data: bytes) -> Path:
    """A durable file with a new name beside `path`."""
    scratch = path.with_name(f"{path.name}.{uuid4().hex}{SCRATCH}")
    with scratch.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return scratch
