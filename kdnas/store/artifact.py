"""Artifacts: a stage works in a `.partial` folder, writes manifest.json last, and renames the folder.

A folder without a manifest is unfinished.
"""

import json
import os
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kdnas.errors import KdnasError, UsageError
from kdnas.store.digest import digest_of, file_sha256
from kdnas.store.disk import disk_errors, locked, require_space
from kdnas.store.host import host
from kdnas.store.json_files import append_jsonl, fsync_folder, json_text, read_jsonl, to_json, write_json
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


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write manifest.json with a hash of its own content."""
    write_json(folder / MANIFEST, sealed(manifest))


def sealed(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest with its seal."""
    return {**manifest, SEAL: seal_of(manifest)}


def seal_of(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of a manifest's content without its seal."""
    return digest_of({key: value for key, value in manifest.items() if key != SEAL})


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
