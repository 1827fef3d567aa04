"""Environments of libraries: found, made from pins, visible packages, and failures."""

import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from kdnas.errors import KdnasError, UsageError
from kdnas.latency.peers.environment import environment_variables, install, pip_command, python_of
from kdnas.latency.peers.libraries import library_of

AddLibrary = Callable[..., Path]
NAME = "kdnas-test-package"


def write_wheel(folder: Path, module: str, version: str, name: str) -> None:
    """Write a wheel with one module that states its version."""
    package = name.replace("-", "_")
    info = f"{package}-{version}.dist-info"
    files = {
        f"{module}.py": f"VERSION = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"{package}-{version}-py3-none-any.whl", "w") as wheel:
        for file, text in files.items():
            wheel.writestr(file, text)


def offline(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let pip see only the wheels in a folder."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")


@pytest.mark.slow
def test_an_environment_has_its_pins_before_our_packages(
    tmp_path: Path, add_library: AddLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_wheel(tmp_path, "kdnas_test_package", "1.0", NAME)
    write_wheel(tmp_path, "docstring_parser", "99.0", "docstring-parser")  # ours has another version
    offline(monkeypatch, tmp_path)
    add_library("dummy", PACKAGES=(NAME,), REQUIREMENTS=(f"{NAME}==1.0", "docstring-parser==99.0"))
    assert python_of(tmp_path, "dummy") is None
    python = install(tmp_path, "dummy")
    assert python == python_of(tmp_path, "dummy") != Path(sys.executable)
    code = "import kdnas_test_package, docstring_parser, psutil, kdnas.latency.peers.worker; print(docstring_parser.VERSION)"
    done = subprocess.run(
        [str(python), "-c", code], capture_output=True, text=True, env=environment_variables(python, 1)
    )
    assert done.stdout == "99.0\n", done.stderr
    before = python.stat().st_ctime_ns
    assert install(tmp_path, "dummy") == python  # made once
    assert python.stat().st_ctime_ns == before


@pytest.mark.slow
def test_a_failed_installation_is_repeated(
    tmp_path: Path, add_library: AddLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline(monkeypatch, tmp_path)
    add_library("dummy", PACKAGES=(NAME,), REQUIREMENTS=(f"{NAME}==1.0",))
    with pytest.raises(
        KdnasError, match=f"peer 'dummy' cannot be installed: ERROR: .*{NAME}==1.0.*; the command was: "
    ):
        install(tmp_path, "dummy")
    assert python_of(tmp_path, "dummy") is None
    write_wheel(tmp_path, "kdnas_test_package", "1.0", NAME)
    assert install(tmp_path, "dummy") == python_of(tmp_path, "dummy")


def test_libraries_of_this_environment_run_in_it(tmp_path: Path) -> None:
    assert python_of(tmp_path, "pytorch") == install(tmp_path, "pytorch") == Path(sys.executable)
    with pytest.raises(UsageError, match="peer 'torch': allowed are"):
        python_of(tmp_path, "torch")


def test_only_packages_without_wheels_are_built() -> None:
    command = pip_command(Path("env/bin/python"), library_of("llama_cpp"))
    assert "--only-binary=:all:" in command
    assert [word for word in command if word.startswith("--no-binary")] == ["--no-binary=llama-cpp-python"]
    assert not [word for word in pip_command(Path("p"), library_of("fastembed")) if word.startswith("--no-binary")]
