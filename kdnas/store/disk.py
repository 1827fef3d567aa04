"""The disk below the artifacts: locks, free space, and messages for a full or unwritable disk."""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kdnas.errors import KdnasError


@contextmanager
def locked(path: Path, wait: bool = False) -> Iterator[None]:
    """Hold an exclusive lock file. The kernel releases it when the process dies, even by kill -9 with forked children alive.

    Raises:
        KdnasError: another process holds the lock, or the file system has no locks.
    """
    from filelock import FileLock, Timeout  # a session, which only reads, starts sooner without it

    lock = FileLock(path, blocking=wait, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise KdnasError(f"{path.with_suffix('')}: another process is building it; wait for it or stop it") from error
    except NotImplementedError as error:
        raise KdnasError(
            f"{path.parent}: this file system has no file locks; set KDNAS_HOME to another disk"
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def disk_errors(home: Path) -> Iterator[None]:
    """Turn a full disk or an unwritable folder into a message."""
    try:
        yield
    except Exception as error:
        number = _error_number(error)
        if number == errno.ENOSPC:
            raise KdnasError(
                f"{home}: no disk space left; free some or set KDNAS_HOME to another disk, then run the same "
                "command again: finished work is kept"
            ) from error
        if number in (errno.EACCES, errno.EROFS, errno.ENOTDIR):
            raise KdnasError(
                f"{home}: cannot write here ({os.strerror(number)}); set KDNAS_HOME to another folder"
            ) from error
        raise


def _error_number(error: Exception) -> int | None:
    """The operating system's error number. Libraries in Rust, such as safetensors, give it only in the message text."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None


def require_space(folder: Path, needed_bytes: int) -> None:
    """Raise KdnasError if the disk of `folder` has less than `needed_bytes` free."""
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise KdnasError(
            f"{folder}: {free / 1e9:.2f} GB free, {needed_bytes / 1e9:.2f} GB needed; free some space or set "
            "KDNAS_HOME to another disk, then run the same command again"
        )
