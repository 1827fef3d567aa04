"""Strategies that were frozen before the losses that judge them were read: their sources must be those of a commit."""

import subprocess
from pathlib import Path

from kdnas.errors import UsageError
from kdnas.store.host import SOURCE

# What decides a proposal: the strategies, what they import, and the defaults of their options.
FILES = (
    "kdnas/search/strategies",
    "kdnas/search/controller.py",
    "kdnas/search/design.py",
    "kdnas/search/goal.py",
    "kdnas/search/options.py",
    "kdnas/search/pareto.py",
    "kdnas/search/reward.py",
)


def require_frozen(commit: str, root: Path = SOURCE) -> str:
    """Check that the sources of the strategies are those of a commit.

    Args:
        commit: any name of the commit.
        root: the checkout.

    Returns:
        The full hash of the commit.

    Raises:
        UsageError: this is no checkout, there is no such commit, or a source file differs from it.
    """
    if not (root / ".git").exists():
        raise UsageError(
            f"frozen is '{commit}', but kdnas does not run from a git checkout; clone it, or leave out --frozen"
        )
    found = _git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{commit}^{{commit}}")
    if not found:
        raise UsageError(f"frozen is '{commit}': there is no such commit in this checkout; `git log` lists them")
    changed = _git(root, "diff", "--name-only", found, "--", *FILES).splitlines()
    changed += _git(root, "ls-files", "--others", "--exclude-standard", "--", *FILES).splitlines()
    if changed:
        raise UsageError(
            f"frozen is '{commit}', but {', '.join(sorted(set(changed)))} differ from it; run from a checkout of that commit, or "
            "freeze the strategies again before the recordings are read"
        )
    return found


def _git(root: Path, *words: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True)
    except OSError as error:
        raise UsageError(
            f"frozen needs git, which cannot be run ({error}); install it, or leave out --frozen"
        ) from error
    return done.stdout.strip()
