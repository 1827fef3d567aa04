"""Layers of the package: each part imports only the parts below it, and there are no import cycles."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOP_FOLDERS = ("latency", "export", "evaluation", "serving", "filtering", "gates")  # links below kdnas/
# The parts that each part may import. `distill` may not import `search`, although both are below `pipeline`.
BASE = {"errors", "extras", "store", "cluster", "processes", "models", "text", "page", "interface"}
MAY_IMPORT = {
    "errors": set(),
    "extras": {"errors"},
    "store": {"errors"},
    "cluster": {"errors", "extras", "store"},
    "processes": {"errors", "store"},
    "models": {"errors", "extras", "store"},
    "teachers": {"errors", "extras", "store", "models"},
    "interface": {"errors"},
    "text": {"errors", "store", "processes", "models"},
    "page": {"errors", "store", "models"},
    "distill": BASE,
    "pretrain": BASE | {"distill"},
    "autodistil": BASE | {"distill"},
    "search": BASE | {"distill", "autodistil"},
    "export": BASE,
    "latency": BASE | {"export", "search"},
    "evaluation": BASE | {"export", "distill", "autodistil", "search"},
    "serving": BASE | {"export"},
    "filtering": BASE | {"export"},
    "pipeline": BASE | {"distill", "search", "export", "latency", "evaluation"},
    "gates": BASE | {"distill", "search", "export", "serving", "filtering", "pipeline"},
}
FREE = {
    "cli",
    "commands",
    "arguments",
    "option_sources",
    "option_help",
    "__init__",
    "__main__",
}  # the top layer may import all parts


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name; folders at the top of the repository have their installed names."""
    found = {}
    for folder in ("kdnas", *TOP_FOLDERS):
        for file in (ROOT / folder).rglob("*.py"):
            parts = file.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts if folder == "kdnas" else ("kdnas", *parts)).removesuffix(".__init__")
            found[name] = file
    return found


MODULES = modules()


def imported(name: str) -> Iterator[str]:
    """Modules of the package that a module imports, at the top or inside functions."""
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (one for one in inner if one in MODULES)
            if any(one not in MODULES for one in inner):
                yield str(node.module)


IMPORTS = {name: set(imported(name)) - {name} for name in MODULES}


def part(name: str) -> str:
    """The part that a module belongs to, for example `store` for `kdnas.store.artifact`."""
    return name.split(".")[1] if "." in name else "__init__"


def test_each_part_imports_only_parts_below_it() -> None:
    assert {part(name) for name in MODULES} - FREE == set(MAY_IMPORT)
    wrong = [
        f"{name} imports {other}"
        for name, others in IMPORTS.items()
        for other in others
        if part(name) not in FREE
        and part(other) not in MAY_IMPORT[part(name)] | {part(name)}
        and (part(other) != "__init__")
    ]
    assert not wrong, "\n".join(wrong)


def import_cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of more than one node that reach each other (Tarjan's strongly connected components)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph[node]:
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(sorted(group))

    for node in graph:
        if node not in index:
            visit(node)
    return found


def test_no_import_cycles_between_files() -> None:
    assert import_cycles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == [["b", "c"]]
    assert import_cycles(IMPORTS) == []


def test_no_import_cycles_between_folders() -> None:
    folders: dict[str, set[str]] = {}
    for name, others in IMPORTS.items():
        if part(name) not in FREE:
            folders.setdefault(part(name), set()).update({part(other) for other in others} - FREE - {part(name)})
    assert import_cycles(folders) == []


def test_no_module_has_a_standard_library_name() -> None:
    wrong = [name for name in MODULES if name.rpartition(".")[2] in sys.stdlib_module_names]
    assert not wrong


@pytest.mark.slow
@pytest.mark.parametrize("folder", TOP_FOLDERS)
def test_top_folders_are_imported_only_below_kdnas(folder: str) -> None:
    assert (ROOT / "kdnas" / folder).resolve() == ROOT / folder
    wrong = [
        str(file)
        for file in [*MODULES.values(), *(ROOT / "tests").rglob("*.py")]
        for node in ast.walk(ast.parse(file.read_text()))
        if (isinstance(node, ast.ImportFrom) and not node.level and str(node.module).partition(".")[0] == folder)
        or (isinstance(node, ast.Import) and any(alias.name.partition(".")[0] == folder for alias in node.names))
    ]
    assert not wrong


def test_user_files_shadow_no_package(tmp_path: Path) -> None:
    for folder in TOP_FOLDERS:
        (tmp_path / f"{folder}.py").write_text("raise ImportError('this file of a user was imported')\n")
    code = "import kdnas.cli, kdnas.export.session, kdnas.filtering.run, kdnas.latency.recommend, kdnas.gates.decision"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr


def test_serving_and_session_import_no_training_packages() -> None:
    code = (
        "import sys, kdnas.export.session, kdnas.serving.run, kdnas.filtering.run\n"
        "heavy = {'torch', 'transformers', 'optimum', 'datasets', 'sklearn', 'accelerate'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr
