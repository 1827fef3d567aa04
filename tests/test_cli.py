import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kdnas import commands


def kdnas(*argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kdnas.cli", *argv], capture_output=True, text=True, env={**os.environ, **environment}
    )


def test_help_lists_every_command_without_heavy_imports() -> None:
    result = kdnas("--help")
    assert result.returncode == 0
    assert all(name in result.stdout for name in (*commands.COMMANDS, *(f"{group}:" for group in commands.GROUPS)))
    code = (
        "import sys; from kdnas import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'numpy', 'jsonargparse', 'openvino', 'rich'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


@pytest.mark.parametrize("argv", [["gate"], ["gate", "--help"], ["help", "gate"]])
def test_gate_lists_its_commands(argv: list[str]) -> None:
    result = kdnas(*argv)
    assert result.returncode == 0
    assert all(name in result.stdout for name in commands.GROUPS["gates"])
    assert "distill" not in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("argv", [["recommend", "-h"], ["help", "recommend"], ["recommend", "--top", "3", "--help"]])
def test_help_of_one_command(argv: list[str]) -> None:
    result = kdnas(*argv)
    assert result.returncode == 0
    assert "--budget-ms NUMBER" in result.stdout


@pytest.mark.parametrize(("word", "near"), [("chek", "check"), ("foo", "compare"), ("chekc", "check")])
def test_unknown_gate_is_reported(word: str, near: str) -> None:
    result = kdnas("gate", word)
    assert result.returncode == 2
    assert near in result.stderr


def test_unknown_command_is_reported() -> None:
    result = kdnas("serch")
    assert result.returncode == 2
    assert "did you mean 'search'" in result.stderr
    assert "Traceback" not in result.stderr


RAISING = """
import os, signal, sys, time
from kdnas import cli, errors
def work():
    {body}
cli.load_command = lambda name: work
cli.main(["search"])
"""


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ("raise errors.KdnasError('plain words')", 1, "kdnas: plain words"),
        ("raise errors.BoundError('bound')", 3, "kdnas: bound"),
        ("raise ValueError('odd')", 1, "internal error: ValueError: odd"),
        ("raise KeyboardInterrupt", 130, "interrupted"),
        ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(5)", 143, "kdnas: terminated"),
        (
            "\n    try: os.kill(os.getpid(), signal.SIGTERM); time.sleep(5)"
            "\n    except BaseException as e: raise errors.UsageError('a damaged file') from e",
            143,
            "kdnas: terminated",
        ),
        ("from kdnas.store.outcome import Outcome; return Outcome(None, exit_code=4)", 4, ""),
    ],
)
def test_exit_codes(tmp_path: Path, body: str, code: int, message: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", RAISING.format(body=body)],
        capture_output=True,
        text=True,
        env={**os.environ, "XDG_STATE_HOME": str(tmp_path)},
    )
    assert result.returncode == code
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert (tmp_path / "kdnas" / "error.log").exists() == ("odd" in body)


def failing(environment: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command that fails with an unexpected error."""
    program = RAISING.format(body="raise ValueError('odd')")
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ, **environment}, cwd=cwd
    )


def test_unexpected_errors_are_logged_in_the_state_folder(tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    for _ in range(2):
        result = failing({"HOME": str(tmp_path), "XDG_STATE_HOME": ""}, here)
        assert result.returncode == 1
    log = tmp_path / ".local" / "state" / "kdnas" / "error.log"
    assert str(log) in result.stderr
    text = log.read_text()
    assert text.count("ValueError: odd") == text.count(": kdnas search") == 2
    assert not list(here.iterdir())


def test_unwritable_error_log_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = failing({"XDG_STATE_HOME": str(tmp_path / "file")}, tmp_path)
    assert result.returncode == 1
    assert "internal error: ValueError: odd" in result.stderr
    assert "error.log" not in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("presses", [1, 10])
def test_ctrl_c_ends_a_command_after_its_clean_up(presses: int) -> None:
    """Repeated Ctrl-C interrupts neither the clean-up nor the message."""
    body = (
        "\n    try: print('ready', flush=True); time.sleep(30)"
        "\n    finally: time.sleep(0.3); print('cleaned', flush=True)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", RAISING.format(body=body)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A background job of a shell script ignores SIGINT, and its children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    process.stdout.readline()
    for _ in range(presses):
        time.sleep(0.04)
        process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert output == "cleaned\n"
    assert errors == "kdnas: interrupted; the same command resumes from here\n"


def interrupted(body: str, presses: int, seconds: float) -> tuple[int, str]:
    """Exit code and stderr of a command in its own process group that gets Ctrl-C `seconds` after its first line."""
    process = subprocess.Popen(
        [sys.executable, "-c", RAISING.format(body=body)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        time.sleep(seconds)
        if presses == 2:
            process.send_signal(signal.SIGINT)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, errors


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.3, 1.5, 3.0])
def test_two_ctrl_c_while_workers_read_docstrings(seconds: float) -> None:
    """A terminal sends Ctrl-C to the whole group; a worker that died with a queue's lock would block the command forever."""
    body = (
        "from kdnas.text.pydocs import docstring_sentences; print('started', flush=True); list(docstring_sentences())"
    )
    code, errors = interrupted(body, 2, seconds)
    assert code == 130
    assert "Traceback" not in errors


STARTING = """
from kdnas.text import pydocs; import time
    leave = pydocs.leave_signals_to_the_parent
    def slowly():
        os.write(1, b'started\\n'); time.sleep(1); leave()
    pydocs.leave_signals_to_the_parent = slowly
    list(pydocs.docstring_sentences())
"""


@pytest.mark.slow
def test_ctrl_c_while_workers_start() -> None:
    """A worker that was just forked must not run the command's signal handler."""
    assert interrupted(STARTING.strip(), 1, 0) == (130, "kdnas: interrupted; the same command resumes from here\n")
