"""With its telemetry on, ONNX Runtime keeps a device number and a queue of events below HOME, and sends them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kdnas.store.artifact import Artifact

SESSION = "import kdnas, sys; kdnas.Session(sys.argv[1], 'onnxruntime-f32').predict(['A text.'])"
SETTING = "import kdnas, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
# Each of these turns telemetry off by itself; the last one moves its files.
OTHERS = ("CI", "GITHUB_ACTIONS", "ORT_RUNNING_UNIT_TESTS", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")


def run(*arguments: str, **more: str) -> str:
    """Output of Python code in a new process, whose environment is that of a user."""
    environment = {name: value for name, value in os.environ.items() if name not in OTHERS} | more
    command = [sys.executable, "-c", *arguments]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


def test_a_session_leaves_no_telemetry(encoder_export: Artifact, tmp_path: Path) -> None:
    run(SESSION, str(encoder_export.path), HOME=str(tmp_path))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(("given", "used"), [({}, "1"), ({"ORT_DISABLE_TELEMETRY": "0"}, "0")])
def test_the_users_setting_counts(given: dict[str, str], used: str) -> None:
    assert run(SETTING, **given).strip() == used
