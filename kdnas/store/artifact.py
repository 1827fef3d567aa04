"""Artifacts: a stage works in a `.partial` folder, writes manifest.json last, and renames the folder.

A folder without a manifest is unfinished.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any

from kdnas.errors import KdnasError, UsageError
from kdnas.store.host import host
from kdnas.store.unfinished import report_unfinished

SCHEMA = 1
MANIFEST = "manifest.json"
ATTEMPTS = "attempts.jsonl"
SEAL = "sha256"  # key of the hash over the manifest's own content


@dataclass(frozen=True)
class Artifact:
    """A finished result on disk: its folder and its manifest."""

    path: Path
    manifest: dict[str, Any]

    @property
    def results(self) -> dict[str, Any]:
        """The results that the stage returned."""
        return dict(self.manifest["results"])

    @property
    def digest(self) -> str:
        """SHA-256 over the file hashes; it changes if the content of any file changes."""
        return digest_of(self.manifest["files"])

    @property
    def exit_code(self) -> int:
        """Exit code of a command that returns an artifact: 0 (done)."""
        return 0

    @classmethod
    def load(cls, path: Path, kind: str | None = None) -> "Artifact":
        """Open a finished artifact.

        Raises:
            UsageError: the folder is missing, unfinished, of another kind or of a newer schema.
        """
        try:
            manifest = json.loads((path / MANIFEST).read_text())
        except (OSError, ValueError) as error:  # missing, not JSON or not UTF-8
            raise UsageError(f"{path}: no finished artifact here ({error}); give a folder with {MANIFEST}") from error
        if manifest.get("schema") != SCHEMA:
            raise UsageError(f"{path}: schema {manifest.get('schema')}, this version reads {SCHEMA}; build it again")
        if kind is not None and manifest.get("kind") != kind:
            raise UsageError(f"{path}: this is a '{manifest.get('kind')}' artifact, a '{kind}' is needed")
        return cls(path, manifest)

    def verify(self, needed: Callable[[str], bool] = lambda name: True) -> None:
        """Compare files with their recorded hashes, and the manifest with its own hash.

        Args:
            needed: whether to read a file, by its name relative to the folder; the others must only exist.

        Raises:
            KdnasError: a file is missing, was changed or is outside the folder.
        """
        again = f"remove {self.path} and make it again"
        file = self.path / MANIFEST
        sealed = self.manifest.get(SEAL) == seal_of(self.manifest)
        if not sealed or file.read_text() != json_text(self.manifest):  # also the text: the seal ignores white space
            raise KdnasError(f"{file}: changed since it was written, or of an older version; {again}")
        root = self.path.resolve()
        for name, expected in self.manifest["files"].items():
            file = self.path / name
            if not file.resolve().is_relative_to(root):
                raise KdnasError(f"{file}: a link to a file outside the folder; {again}")
            if not file.is_file() or (needed(name) and file_sha256(file) != expected):
                raise KdnasError(f"{file}: missing or changed since it was written; {again}")


def build(
    home: Path,
    kind: str,
    label: str,
    config: Mapping[str, Any],
    inputs: Mapping[str, str],
    work: Callable[[Path], dict[str, Any]],
    needed_bytes: int = 50_000_000,
    wait: bool = False,
) -> Artifact:
    """Return the finished artifact of this configuration, or do the work, resuming an interrupted run, and publish it.

    Args:
        home: root folder of all artifacts.
        kind: name of the folder below `home`, such as `latency-table`.
        label: readable start of the artifact's folder name.
        config: all settings that decide the result; with `inputs` they make the key.
        inputs: name of each input to its digest.
        work: called with the working folder, which contains the files of an interrupted run; returns results for the manifest.
        needed_bytes: minimum free disk space to start, in bytes.
        wait: wait for another process that builds the same artifact, and return its result.

    Raises:
        KdnasError: there is too little disk space, or another process builds the same artifact and `wait` is not set.
    """
    settings = {"config": to_json(config), "inputs": dict(inputs)}
    key = key_of(kind, settings)
    final = _folder_of(home / kind, label, key)
    if (final / MANIFEST).exists():
        return Artifact.load(final, kind)
    partial = final.with_name(final.name + ".partial")
    with disk_errors(home):
        partial.mkdir(parents=True, exist_ok=True)
        require_space(home, needed_bytes)
        with locked(final.with_name(final.name + ".lock"), wait):
            if (final / MANIFEST).exists():  # built while this process waited
                return Artifact.load(final, kind)
            attempts = read_jsonl(partial / ATTEMPTS)
            if not attempts:
                report_unfinished(partial, ATTEMPTS, settings)
            append_jsonl(partial / ATTEMPTS, {"started": now(), "pid": os.getpid(), "settings": settings})
            start = time.monotonic()
            results = work(partial)
            (partial / ATTEMPTS).unlink()  # the manifest records the attempts; the digest covers content only
            manifest = {
                "schema": SCHEMA,
                "kind": kind,
                "key": key,
                **settings,
                "results": to_json(results),
                "host": host(),
                "finished": now(),
                "attempts": len(attempts) + 1,
                "seconds": round(time.monotonic() - start, 1),
                "files": file_hashes(partial),
            }
            publish(partial, final, manifest)
    final.with_name(final.name + ".lock").unlink(missing_ok=True)
    return Artifact.load(final)


def _folder_of(folder: Path, label: str, key: str) -> Path:
    """Folder of the finished or unfinished artifact with this key under any label, else a new folder's name."""
    for ending in ("", ".partial"):
        for found in sorted(folder.glob(f"*-{key}{ending}")):
            return found.with_name(found.name.removesuffix(".partial"))
    return folder / f"{label}-{key}"


def key_of(kind: str, settings: Mapping[str, Any]) -> str:
    """The key that ends an artifact's folder name: first 12 digits of the SHA-256 of its kind, configuration and inputs."""
    return digest_of({"kind": kind, **settings})[:12]


def find(home: Path, kind: str, label: str, config: Mapping[str, Any], inputs: Mapping[str, str]) -> Artifact | None:
    """The finished artifact that `build` would return for these arguments; None if it does not exist."""
    folder = _folder_of(home / kind, label, key_of(kind, {"config": to_json(config), "inputs": dict(inputs)}))
    return Artifact.load(folder, kind) if (folder / MANIFEST).exists() else None


def publish(partial: Path, final: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest, which makes the working folder a finished artifact, and rename the folder; durably.

    All files get the permissions of a new file: `safetensors` writes files that only their owner can read, so a service that
    runs as another user could not load the model.
    """
    write_manifest(partial, manifest)
    mode = stat.S_IMODE((partial / MANIFEST).stat().st_mode)
    for file in partial.rglob("*"):
        if file.is_file() and not file.is_symlink():
            file.chmod(stat.S_IMODE(file.stat().st_mode) | mode)
    os.rename(partial, final)
    fsync_folder(final.parent)


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


def to_json(value: Any) -> Any:
    """Dataclasses, enums, paths and tuples as plain JSON values."""
    if is_dataclass(value) and not isinstance(value, type):
        return to_json(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_json(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    return str(value) if isinstance(value, Path) else value


def digest_of(value: Any) -> str:
    """SHA-256 of the value's canonical JSON. 10 and 10.0 give the same digest, because YAML and Python defaults may differ."""
    return hashlib.sha256(json.dumps(_whole_floats_as_ints(to_json(value)), sort_keys=True).encode()).hexdigest()


def _whole_floats_as_ints(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _whole_floats_as_ints(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole_floats_as_ints(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write manifest.json with a hash of its own content."""
    write_json(folder / MANIFEST, sealed(manifest))


def sealed(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest with its seal."""
    return {**manifest, SEAL: seal_of(manifest)}


def seal_of(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of a manifest's content without its seal."""
    return digest_of({key: value for key, value in manifest.items() if key != SEAL})


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder except manifests, by its path in the folder."""
    return {
        str(file.relative_to(folder)): file_sha256(file)
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != MANIFEST
    }


def now() -> str:
    """UTC time, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def json_text(value: Any) -> str:
    """A value as the text of a JSON file."""
    return json.dumps(to_json(value), indent=2) + "\n"


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically and durably: a reader sees either the whole old file or the whole new one."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w") as file:
        file.write(json_text(value))
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    fsync_folder(path.parent)


def fsync_folder(path: Path) -> None:
    """Make renames inside a folder durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Rows of an append-only log. An incomplete last line is removed from the file, so that the next append starts a new line."""
    if not path.exists():
        return []
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) != len(data):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    return [json.loads(line) for line in whole.splitlines() if line.strip()]


def append_jsonl(path: Path, row: Mapping[str, Any]) -> None:
    """Append one row and fsync it. Call `read_jsonl` once before the first append: it removes an incomplete last line."""
    with path.open("a") as file:
        file.write(json.dumps(to_json(row)) + "\n")
        file.flush()
        os.fsync(file.fileno())
