import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kdnas.option_sources import from_environment, variable_of

SERVE = ("host", "port", "threads", "model", "max_texts")
OF_KUBERNETES = {
    "KDNAS_PORT": "tcp://10.0.0.1:80",
    "KDNAS_SERVICE_HOST": "10.0.0.1",
    "KDNAS_SERVICE_PORT": "80",
    "KDNAS_SERVICE_PORT_HTTP": "80",
    "KDNAS_PORT_8000_TCP": "tcp://10.0.0.1:80",
    "KDNAS_PORT_8000_TCP_PROTO": "tcp",
    "KDNAS_PORT_8000_TCP_PORT": "8000",
    "KDNAS_PORT_8000_TCP_ADDR": "10.0.0.1",
    "KDNAS_HOME_SERVICE_HOST": "10.0.0.2",  # of another service, kdnas-home
}


def test_environment_variables_set_options() -> None:
    assert variable_of("text.max_length") == "KDNAS_TEXT__MAX_LENGTH"
    assert from_environment(SERVE, {"KDNAS_PORT": "80", "PORT": "90"}, "serve") == {"port": "80"}


@pytest.fixture(autouse=True)
def propagated(monkeypatch: pytest.MonkeyPatch) -> None:
    """`caplog` listens at the root logger, to which commands do not propagate messages."""
    monkeypatch.setattr(logging.getLogger("kdnas"), "propagate", True)


def test_variables_of_kubernetes_are_ignored_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = from_environment(SERVE, {**OF_KUBERNETES, "KDNAS_THREADS": "2"}, "serve")
    assert found == {"threads": "2"}
    (message,) = caplog.messages
    assert all(name in message for name in OF_KUBERNETES)


def test_unknown_variables_give_one_warning_with_suggestions(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert from_environment(SERVE, {"KDNAS_THREDS": "2", "KDNAS_XYZ": "1"}, "serve") == {}
    (message,) = caplog.messages
    assert "KDNAS_THREDS (did you mean 'KDNAS_THREADS'?)" in message
    assert "KDNAS_XYZ" in message


def test_known_variables_give_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    known = {"KDNAS_HOME": "a", "KDNAS_CONFIG": "b", "KDNAS_DEBUG": "1", "KDNAS_GATE_MODEL": "c"}
    with caplog.at_level(logging.WARNING):
        assert from_environment(SERVE, known, "serve") == {}
    assert not caplog.messages


def serve(tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kdnas.cli", "serve", "--model", str(tmp_path / "nothing")]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})


def test_serve_starts_in_a_pod_next_to_a_service_named_kdnas(tmp_path: Path) -> None:
    result = serve(tmp_path, **OF_KUBERNETES)
    assert "KDNAS_PORT" in result.stderr.splitlines()[0]
    assert "not an exported model" in result.stderr.splitlines()[-1]  # the options were accepted


@pytest.mark.slow
def test_port_that_is_not_a_number_is_a_usage_error(tmp_path: Path) -> None:
    result = serve(tmp_path, KDNAS_PORT="http")
    assert result.returncode == 2
    assert "KDNAS_PORT takes a whole number, not 'http'" in result.stderr
