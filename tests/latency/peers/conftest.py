"""A small export, and libraries that only tests have, in this process and in the worker processes."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import kdnas.latency.peers.libraries as libraries
from kdnas.export.options import ExportOptions
from kdnas.export.run import run_export
from kdnas.models.teacher import Teacher
from kdnas.store.artifact import Artifact
from kdnas.text.corpus import Corpus

# Runs at the start of every worker process: the new libraries become part of the package.
CUSTOMISE = """
import kdnas.latency.peers.libraries as libraries
for folder, name in {added}:
    libraries.__path__.append(folder)
    libraries.ORDER += (name,)
"""


@pytest.fixture(scope="session")
def small_export(home: Path, tiny_teacher: Teacher, corpus: Corpus) -> Artifact:
    """Export of the tiny random BERT in float32."""
    options = ExportOptions(24, 24, forms=("openvino-f32", "onnxruntime-f32"))
    return run_export(home, tiny_teacher.path, tiny_teacher.digest, corpus, options)


@pytest.fixture
def add_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Adds `dummy_library.py` under a name, with code that runs before each call and with other constants."""
    added: list[tuple[str, str]] = []

    def add(name: str, before_call: str = "return", **constants: object) -> Path:
        folder = tmp_path / f"library-{name}"
        folder.mkdir()
        source = Path(__file__).with_name("dummy_library.py").read_text()
        lines = [f"{key} = {value!r}" for key, value in constants.items()]
        body = "\n    ".join(before_call.splitlines())
        (folder / f"{name}.py").write_text("\n".join([source, f"def before_call(state, texts):\n    {body}", *lines]))
        added.append((str(folder), name))
        (folder / "sitecustomize.py").write_text(CUSTOMISE.format(added=added))
        sys.modules.pop(f"{libraries.__name__}.{name}", None)  # that of an earlier test
        monkeypatch.setattr(libraries, "__path__", [*libraries.__path__, str(folder)])
        monkeypatch.setattr(libraries, "ORDER", (*libraries.ORDER, name))
        monkeypatch.setattr("kdnas.latency.peers.rows.ORDER", libraries.ORDER)
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))
        return folder

    return add


@pytest.fixture
def right(add_library: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A library of numpy alone gives the right answers, so that no test of the comparison itself starts PyTorch."""
    add_library("right", CHOICES={"plain": ({"width": 96},)})
    for module in ("rows", "measure", "results", "run"):
        monkeypatch.setattr(f"kdnas.latency.peers.{module}.RIGHT", "right plain")
    monkeypatch.setattr("kdnas.latency.peers.rows.REFERENCE", "right")
    monkeypatch.setattr("kdnas.latency.peers.rows.REFERENCE_VARIANT", "plain")
