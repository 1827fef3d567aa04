"""Where a library runs: the environment of kdnas if that has its packages, else one of its own below the home.

An own environment sees the packages of kdnas after its own ones. So it holds only what kdnas lacks or has in another version, and
its exact pins win where both have a package.
"""

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from kdnas.errors import KdnasError
from kdnas.latency.peers.libraries import Library, library_of
from kdnas.store.digest import digest_of
from kdnas.store.disk import disk_errors, locked, require_space
from kdnas.store.host import SOURCE, child_environment
from kdnas.store.json_files import write_json
from kdnas.store.progress import stage

FOLDER = "peers-environments"
DONE = "installed.json"  # written last: without it an environment is unfinished
NEEDED_BYTES = 1_000_000_000


def python_of(home: Path, name: str) -> Path | None:
    """The Python that runs a library; None if it is not installed.

    Args:
        home: root of artifacts.
        name: name of the library.
    """
    library = library_of(name)
    if all(map(_is_here, library.PACKAGES)):
        return Path(sys.executable)
    folder = folder_of(home, name, library)
    return folder / "bin" / "python" if (folder / DONE).is_file() else None


def _is_here(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def folder_of(home: Path, name: str, library: Library) -> Path:
    """The folder of a library's own environment; other pins or another Python give another folder."""
    key = digest_of([library.REQUIREMENTS, sys.version_info[:2], sysconfig.get_path("purelib")])[:12]
    return home / FOLDER / f"{name}-{key}"


def install(home: Path, name: str) -> Path:
    """Make a library's environment from its pins, unless it is there already; return its Python.

    Raises:
        KdnasError: pip fails, the disk is full, or another process makes the same environment.
    """
    found = python_of(home, name)
    if found is not None:
        return found
    library = library_of(name)
    folder = folder_of(home, name, library)
    with disk_errors(home):
        folder.mkdir(parents=True, exist_ok=True)
        require_space(home, NEEDED_BYTES)
        lock = folder.with_name(folder.name + ".lock")
        with locked(lock), stage(f"install {name}", None):
            _run([sys.executable, "-m", "venv", "--without-pip", "--clear", str(folder)], name)
            _see_ours(folder)
            _run(pip_command(folder / "bin" / "python", library), name)
            write_json(folder / DONE, {"requirements": library.REQUIREMENTS})
        lock.unlink(missing_ok=True)
    return folder / "bin" / "python"


def pip_command(python: Path, library: Library) -> list[str]:
    """The command that installs a library's pins, wheels only but for those that have none."""
    built = [f"--no-binary={name}" for name in library.FROM_SOURCE]
    options = ["--no-deps", "--only-binary=:all:", *built, "--no-input", "--disable-pip-version-check"]
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    return [*pip, *options, *library.REQUIREMENTS]


def _see_ours(folder: Path) -> None:
    """Let an environment see the packages of this one after its own. `addsitedir` also reads the links of editable packages."""
    ours = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    packages = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    lines = [f"import site; site.addsitedir({json.dumps(path)})" for path in sorted(ours)]
    (packages / "kdnas.pth").write_text("\n".join(lines) + "\n")


def _run(command: Sequence[str], name: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        errors = [line for line in lines if line.startswith("ERROR")] or lines[-1:] or ["no message"]
        raise KdnasError(
            f"peer '{name}' cannot be installed: {errors[-1]}; the command was: {' '.join(map(str, command))}"
        )


def environment_variables(python: Path, threads: int) -> dict[str, str]:
    """Variables of a worker process: its threads, no network, and the same `kdnas` as this process.

    Args:
        python: Python of the worker.
        threads: number of threads for OpenMP.
    """
    offline = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": str(threads)}
    variables = child_environment(**offline)
    if python != Path(sys.executable) and str(SOURCE) == sysconfig.get_path("purelib"):
        # `kdnas.pth` gives it the installed kdnas; with this path the packages of kdnas would come before its own.
        variables["PYTHONPATH"] = os.environ.get("PYTHONPATH", "")
    return variables
