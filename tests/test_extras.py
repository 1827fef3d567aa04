import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from kdnas import extras
from kdnas.commands import COMMANDS, Command, load_command
from kdnas.errors import KdnasError, UsageError

ROOT = Path(__file__).resolve().parents[1]
# Runs a command as if some packages were not installed.
BLOCKED = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {modules}:
            raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)
sys.meta_path.insert(0, Block())
from kdnas.cli import main
main({argv})
"""


def without(modules: set[str], *argv: object) -> subprocess.CompletedProcess[str]:
    program = BLOCKED.format(modules=modules, argv=[str(word) for word in argv])
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)


def test_extras_equal_those_in_pyproject() -> None:
    file = ROOT / "pyproject.toml"
    declared = tomllib.loads(file.read_text())["project"]["optional-dependencies"]
    assert {extra: sorted(packages) for extra, packages in extras.EXTRAS.items()} == {
        extra: sorted(packages) for extra, packages in declared.items() if extra not in ("dev", "docs")
    }


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if command.extras])
def test_every_command_reports_its_missing_extras(name: str) -> None:
    needed = COMMANDS[name].extras
    modules = {module.split(".")[0] for extra in needed for module in extras.EXTRAS[extra].values()}
    result = without(modules, *name.split(), "--help")
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert f"run: pip install 'kdnas[{','.join(needed)}]'" in result.stderr
    assert all(package in result.stderr for extra in needed for package in extras.EXTRAS[extra])
    assert not re.search("make|requirements|Traceback|internal error", result.stderr, re.IGNORECASE)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if not command.extras])
def test_commands_without_extras_load_without_any(name: str) -> None:
    modules = {module.split(".")[0] for packages in extras.EXTRAS.values() for module in packages.values()}
    # jsonargparse looks for fsspec and pydantic; it need not find them, but the search must not fail.
    modules -= {"google", "fsspec", "pydantic"}
    result = without(modules, *name.split(), "--help")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"usage: kdnas {name}")


def test_only_extras_with_missing_packages_are_reported() -> None:
    result = without({"nncf", "optimum"}, "export", "--model", "x")
    assert result.returncode == 1
    assert "'export' needs packages that are not installed: nncf, optimum" in result.stderr
    assert "pip install 'kdnas[export]'" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("modules", "argv", "line"),
    [
        ({"pyarrow"}, "filter --model m --input a.parquet --output o", "pip install 'kdnas[parquet]'"),
        ({"ray"}, "search --table t --ray local", "pip install 'kdnas[cluster]'"),
        ({"tensorboard", "tensorboardX"}, "distill --arch a --trackers tensorboard", "pip install 'kdnas[track]'"),
        ({"plotly"}, "report --run r", "pip install 'kdnas[report]'"),
        ({"jinja2"}, "compare-suites --models a", "pip install 'kdnas[report]'"),
    ],
)
def test_options_report_the_extras_they_need(modules: set[str], argv: str, line: str) -> None:
    result = without(modules, *argv.split())
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].endswith(f"run: {line}")


def test_fields_of_option_groups_are_checked() -> None:
    @dataclass
    class Options:
        trackers: tuple[str, ...] = ("paper",)

    with pytest.raises(UsageError, match="allowed are tensorboard, mlflow"):
        extras.require_for_values({"distill": Options()})


def test_missing_tracker_outside_the_extras_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "is_installed", lambda module: False)
    with pytest.raises(KdnasError, match="run: pip install mlflow"):
        extras.require_tracker("mlflow")


def test_missing_package_outside_the_extras_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COMMANDS, "test", Command("no_such_package.run:f", ""))
    with pytest.raises(KdnasError, match="pip install no_such_package"):
        load_command("test")


def test_failed_import_at_run_time_names_its_extra() -> None:
    assert "pip install 'kdnas[export]'" in extras.explain_missing(ModuleNotFoundError(name="onnx.helper"))
    assert extras.explain_missing(ModuleNotFoundError(name="no_such_package")) == ""
