"""A new engine needs three files: the test adds one to a copy of the package, and every command and the session can use it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kdnas.models.teacher import Teacher

pytestmark = pytest.mark.slow


ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("kdnas", "latency", "export", "evaluation", "serving", "gates")
USE = Path(__file__).with_name("use_mirror.py")


def before(mark: str, text: str) -> Callable[[str], str]:
    """An edit that inserts a text before a marker that occurs once in a file."""

    def edit(content: str) -> str:
        assert content.count(mark) == 1
        return content.replace(mark, text + mark)

    return edit


# ONNX Runtime's float32 graph, under a new name and in a separate folder.
EDITS: dict[str, Callable[[str], str]] = {
    "kdnas/models/engine.py": before(
        'Engine("cuda", Precision.F32', 'Engine("mirror", Precision.F32, graph="mirror/model.onnx"),\n        '
    ),
    "latency/engines/mirror.py": lambda _: (
        "from kdnas.latency.engines.onnxruntime import make_models, product_chain, require\n"
    ),
    "export/engines.py": lambda content: content + 'RUNTIMES["mirror"] = Runtime(open_onnxruntime, write_onnx)\n',
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package with an additional engine."""
    root = tmp_path_factory.mktemp("copy")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, root / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name, edit in EDITS.items():
        file = root / name
        file.write_text(edit(file.read_text() if file.exists() else ""))
    return root


def test_a_new_engine_needs_three_files(copy: Path, tiny_teacher: Teacher, corpus_file: Path, tmp_path: Path) -> None:
    assert len(EDITS) == 3
    few = tmp_path / "few.jsonl"
    few.write_text("\n".join(corpus_file.read_text().splitlines()[:600]) + "\n")
    result = subprocess.run(
        [sys.executable, str(USE), str(tiny_teacher.path), str(few), str(tmp_path / "home")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(copy)},
    )
    assert result.returncode == 0, result.stderr[-3000:]
    seen = json.loads(result.stdout.splitlines()[-1])
    assert seen["package"] == str(copy.resolve())
    assert "mirror-f32" in seen["help"]
    assert "mirror-f32" in seen["suites"]
    assert seen["forms"] == ["mirror-f32", "onnxruntime-f32"]
    assert sorted(seen["speed"]) == ["mirror-f32", "onnxruntime-f32"]
    assert seen["same"]
    times = np.array(seen["times_ms"])
    assert times.shape[1] == 2
    assert (times > 0).all()
