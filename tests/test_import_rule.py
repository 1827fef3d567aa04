"""kdnas <- export <- {latency, evaluation, serving} <- gates: one way through, no way back."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from kdnas.guard import SIBLINGS, require_own_siblings

ROOT = Path(__file__).resolve().parents[2]
MAY_IMPORT = {
    "kdnas": set(),
    "export": {"kdnas"},
    "latency": {"kdnas", "export"},
    "evaluation": {"kdnas", "export"},
    "gates": {"kdnas", "export", "serving"},
    "serving": {"kdnas", "export"},
}
EXCEPTIONS = {"kdnas/cli.py", "kdnas/pipeline.py"}
STANDARD_NAMES = set(sys.stdlib_module_names)


def imported(file: Path) -> set[str]:
    """Top-level names that a file imports anywhere, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_packages_import_only_what_is_below_them(package: str) -> None:
    for file in (ROOT / package).rglob("*.py"):
        name = str(file.relative_to(ROOT))
        if name not in EXCEPTIONS:
            wrong = (imported(file) & set(MAY_IMPORT)) - MAY_IMPORT[package] - {package}
            assert not wrong, f"{name} imports {wrong}"


def test_no_module_is_named_like_the_standard_library() -> None:
    for package in MAY_IMPORT:
        for file in (ROOT / package).rglob("*.py"):
            assert file.stem == "__init__" or file.stem not in STANDARD_NAMES, file


def test_serving_and_the_session_import_no_training_packages() -> None:
    code = (
        "import sys, kdnas.export.session, kdnas.serving.run, kdnas.serving.filter\n"
        "heavy = {'torch', 'transformers', 'optimum', 'datasets', 'sklearn', 'accelerate'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr


def test_a_foreign_sibling_is_refused(tmp_path: Path) -> None:
    require_own_siblings()
    with pytest.raises(ImportError, match="comes from"):
        require_own_siblings(tmp_path)
    assert set(SIBLINGS) == set(MAY_IMPORT) - {"kdnas"}


def test_the_guard_stops_a_shadowed_package(tmp_path: Path) -> None:
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "__init__.py").write_text("")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import kdnas"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode != 0
    assert f"its package 'evaluation' comes from {tmp_path}" in result.stderr
