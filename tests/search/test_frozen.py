"""Frozen strategies: their sources must be those of the named commit."""

import subprocess
from pathlib import Path

import pytest

from kdnas.errors import UsageError
from kdnas.search import frozen
from kdnas.search.frozen import FILES, require_frozen

ROOT = Path(__file__).resolve().parents[2]


def git(root: Path, *words: str) -> str:
    who = ("-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false")
    return subprocess.run(
        ["git", "-C", str(root), *who, *words], capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with the files of the strategies and one other."""
    git(tmp_path, "init", "--quiet")
    for name in (*FILES[1:], "kdnas/search/strategies/lstm.py", "kdnas/search/study.py"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x = 1\n")
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    return tmp_path


def test_equal_sources_are_accepted_whatever_else_changed(checkout: Path) -> None:
    first = git(checkout, "rev-parse", "HEAD")
    (checkout / "kdnas/search/study.py").write_text("x = 2\n")
    git(checkout, "commit", "--all", "--quiet", "--message", "second")
    assert require_frozen("HEAD~1", checkout) == require_frozen(first[:10], checkout) == first


@pytest.mark.parametrize(
    ("name", "committed"),
    [
        ("kdnas/search/controller.py", True),
        ("kdnas/search/strategies/lstm.py", False),
        ("kdnas/search/strategies/new.py", False),
    ],
)
def test_changed_and_new_sources_are_rejected(checkout: Path, name: str, committed: bool) -> None:
    first = git(checkout, "rev-parse", "HEAD")
    (checkout / name).write_text("x = 3\n")
    if committed:
        git(checkout, "commit", "--all", "--quiet", "--message", "second")
    with pytest.raises(UsageError, match=f"^frozen is '{first}', but {name} differ from it; run from a checkout"):
        require_frozen(first, checkout)


def test_unknown_commits_and_folders_without_git_are_rejected(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    for wrong in ("0" * 40, "no-such-branch", "--help"):
        with pytest.raises(UsageError, match="there is no such commit"):
            require_frozen(wrong, checkout)
    with pytest.raises(UsageError, match="does not run from a git checkout"):
        require_frozen("HEAD", tmp_path_factory.mktemp("installed"))


def test_every_module_that_a_strategy_imports_is_frozen() -> None:
    modules = {file.removesuffix(".py") for file in FILES}
    sources = [
        path for name in FILES for path in ([ROOT / name] if name.endswith(".py") else (ROOT / name).glob("*.py"))
    ]
    assert all((ROOT / name).exists() for name in FILES)
    for source in sources:
        for line in source.read_text().splitlines():
            words = line.split()
            if words[:1] == ["from"] and words[1].startswith("kdnas.search"):
                module = words[1].replace(".", "/")
                assert any(module == known or module.startswith(f"{known}/") for known in modules), (source.name, line)
    assert frozen.SOURCE == ROOT
