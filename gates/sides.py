"""The two sides of a comparison: revisions, wheels, environments or models, ready to run."""

import hashlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from kdnas.errors import KdnasError, UsageError
from kdnas.store.digest import digest_of, file_sha256

LOCK = "requirements.lock"
LINES = 12  # maximum lines of a failed command's output in the error


@dataclass(frozen=True)
class Side:
    """One side of a comparison.

    Args:
        name: name as given by the user.
        python: Python interpreter.
        tree: first entry of the import path; None uses the installed package.
        model: export that the benchmarks use.
        digest: changes with the code, the environment and the model.
    """

    name: str
    python: Path
    tree: Path | None
    model: Path | None
    digest: str

    @property
    def suite(self) -> Path | None:
        """The benchmarks of its own tree."""
        found = self.tree / "kdnas" / "gates" / "suite" / "hot_paths.py" if self.tree else None
        return found if found is not None and found.is_file() else None


def make_side(spec: str, model: Path | None, scratch: Path, root: Path) -> Side:
    """Resolve a side.

    Args:
        spec: a git revision, `.` for the checkout as it is, a wheel, or a Python interpreter of another environment.
        model: export that the benchmarks use; None builds a random one.
        scratch: folder for checkouts and environments.
        root: the checkout.

    Raises:
        UsageError: `spec` is not one of the above.
        KdnasError: it cannot be built.
    """
    path = Path(spec)
    if model is not None and not (model / "manifest.json").is_file():
        raise UsageError(f"model '{model}': no manifest.json here; give a folder that `kdnas export` printed")
    marks = [spec, str(model and file_sha256(model / "manifest.json"))]
    if spec == ".":
        git = ["git", "-C", str(root)]
        untracked = _output([*git, "ls-files", "--others", "--exclude-standard"]).splitlines()
        marks += [_revision(root, "HEAD"), _output([*git, "diff", "HEAD"])]
        marks += [f"{name} {file_sha256(root / name)}" for name in untracked if (root / name).is_file()]
        return Side(spec, Path(sys.executable), root, model, digest_of(marks))
    if path.suffix == ".whl" and path.is_file():
        tree = scratch / "wheels" / file_sha256(path)[:12]
        if not tree.is_dir():
            _run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(tree), str(path)], spec)
        return Side(spec, Path(sys.executable), tree, model, digest_of([*marks, file_sha256(path)]))
    if path.is_file() and path.name.startswith("python"):
        return Side(
            spec, path.absolute(), None, model, digest_of([*marks, _output([str(path), "-m", "pip", "freeze"])])
        )
    commit = _revision(root, spec)
    tree = scratch / "trees" / commit[:12]
    if not tree.is_dir():
        _run(["git", "-C", str(root), "worktree", "prune"], spec)
        _run(["git", "-C", str(root), "worktree", "add", "--detach", str(tree), commit], spec)
    side = Side(spec, _environment(tree, root, scratch, spec), tree, model, digest_of([*marks, commit]))
    require_import(side)
    return side


def require_import(side: Side) -> None:
    """Raise KdnasError if the package of a side cannot be imported."""
    folder = str(side.tree) if side.tree else ""
    command = [
        str(side.python),
        "-c",
        f"import sys; sys.path.insert(0, {folder!r}); import kdnas.cli, kdnas.export.session",
    ]
    _run(command, side.name)


def commit_of(root: Path) -> str:
    """The commit that a checkout is at."""
    return _revision(root, "HEAD")


def _environment(tree: Path, root: Path, scratch: Path, spec: str) -> Path:
    """This interpreter if the pins are equal, else one of a new environment with the pins of the revision."""
    pins = (tree / LOCK).read_bytes() if (tree / LOCK).is_file() else b""
    if not pins or ((root / LOCK).is_file() and pins == (root / LOCK).read_bytes()):
        return Path(sys.executable)
    folder = scratch / "environments" / hashlib.sha256(pins).hexdigest()[:12]
    python = folder / "bin" / "python"
    if not (folder / "ready").is_file():
        _run([sys.executable, "-m", "venv", "--clear", str(folder)], spec)
        pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps"]
        _run([*pip, "-r", str(tree / LOCK)], spec)
        (folder / "ready").touch()
    return python


def _revision(root: Path, spec: str) -> str:
    found = subprocess.run(
        ["git", "-C", str(root), "rev-parse", "--verify", "--quiet", f"{spec}^{{commit}}"],
        capture_output=True,
        text=True,
    )
    if found.returncode:
        raise UsageError(
            f"'{spec}': not a revision of {root}, a wheel or an interpreter; give a branch, tag or commit, `.`, a .whl file or "
            "bin/python of an environment"
        )
    return found.stdout.strip()


def _output(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def _run(command: list[str], spec: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        output = "\n".join((done.stdout + done.stderr).strip().splitlines()[-LINES:])
        raise KdnasError(f"'{spec}' cannot be built: {' '.join(command[:6])} ended with {done.returncode}\n{output}")
