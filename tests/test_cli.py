import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from kdnas import cli
from kdnas.errors import KdnasError, UsageError


@dataclass(frozen=True)
class Options:
    """Options.

    Args:
        minutes: how long.
        fast: whether to hurry.
    """

    minutes: float = 10
    fast: bool = False


@dataclass(frozen=True)
class Group:
    """Group.

    Args:
        column: which.
        languages: some.
    """

    column: str = "text"
    languages: tuple[str, ...] | None = None


def command(options: Options = Options(), text: Group = Group(), home: Path = Path("artifacts")) -> None:
    """A command."""


@pytest.fixture
def parse(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(cli.COMMANDS, "test", cli.Command("x:y", "a test"))
    monkeypatch.delenv("KDNAS_HOME", raising=False)
    return lambda *argv: cli.parse("test", command, list(argv))


def test_precedence_is_defaults_yaml_environment_flags(parse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("minutes: 1\ntext: {column: yaml}\nhome: yaml\n")
    assert parse()["options"] == Options(10, False)
    values = parse("--config", str(config))
    assert (values["options"].minutes, values["text"].column, values["home"]) == (1, "yaml", Path("yaml"))
    monkeypatch.setenv("KDNAS_TEXT__COLUMN", "env")
    monkeypatch.setenv("KDNAS_HOME", "env")
    values = parse("--config", str(config))
    assert (values["options"].minutes, values["text"].column, values["home"]) == (1, "env", Path("env"))
    values = parse("--config", str(config), "--minutes", "3", "--text.column=flag", "--home", "flag")
    assert (values["options"].minutes, values["text"].column, values["home"]) == (3, "flag", Path("flag"))


def test_flags_may_be_bare_and_dashed(parse) -> None:
    assert parse("--fast")["options"].fast is True
    assert parse("--fast", "false")["options"].fast is False
    assert parse("--fast", "--minutes", "2")["options"] == Options(2, True)
    assert parse("--no-fast", "--minutes", "2")["options"] == Options(2, False)
    with pytest.raises(UsageError, match="no_minutes"):
        parse("--no-minutes")


@pytest.mark.parametrize(
    "argv", [["--text.languages", "en,de"], ["--text.languages=en,de"], ["--text.languages", "[en,de]"]]
)
def test_lists_need_no_brackets(parse, argv: list[str]) -> None:
    assert parse(*argv)["text"].languages == ("en", "de")
    assert parse()["text"].languages is None
    assert parse("--text.languages", "en")["text"].languages == ("en",)
    assert parse("--text.languages", "null")["text"].languages is None


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--minuts", "3"], "did you mean 'minutes'"),
        (["--text.colum", "x"], "did you mean 'text.column'"),
        (["--minutes", "soon"], "Got value: soon"),
        (["--config", "missing.yaml"], "does not exist"),
        (["--minutes"], "expected one argument"),
    ],
)
def test_wrong_flags_are_explained(parse, argv: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        parse(*argv)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("minuts: 3", "did you mean 'minutes'"),
        ("text: {colum: x}", "did you mean 'text.column'"),
        ("minutes: soon", "Got value: soon"),
        ("minutes: [", "not a YAML file"),
        ("- a", "must hold"),
    ],
)
def test_wrong_yaml_is_explained(parse, tmp_path: Path, yaml: str, message: str) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(yaml)
    with pytest.raises(UsageError, match=message):
        parse("--config", str(config))


def kdnas(*argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kdnas.cli", *argv], capture_output=True, text=True, env={**os.environ, **environment}
    )


def test_help_lists_every_command_without_heavy_imports() -> None:
    result = kdnas("--help")
    assert result.returncode == 0
    assert all(name in result.stdout for name in cli.COMMANDS)
    code = (
        "import sys; from kdnas import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'numpy', 'jsonargparse', 'openvino', 'rich'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_every_command_exists_and_shows_its_help() -> None:
    for name in cli.COMMANDS:
        assert callable(cli.load_command(name)), name


def test_an_unknown_command_is_explained() -> None:
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
        ("return 4", 4, ""),
    ],
)
def test_exit_codes(tmp_path: Path, body: str, code: int, message: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", RAISING.format(body=body)],
        capture_output=True,
        text=True,
        env={**os.environ, "KDNAS_HOME": str(tmp_path)},
    )
    assert result.returncode == code
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    if "odd" in body:
        assert "ValueError: odd" in (tmp_path / "error.log").read_text()


@pytest.mark.parametrize("presses", [1, 10])
def test_ctrl_c_ends_a_real_command(presses: int) -> None:
    """Pressed again and again, it breaks off neither the clean-up nor the message."""
    body = (
        "\n    try: print('ready', flush=True); time.sleep(30)"
        "\n    finally: time.sleep(0.3); print('cleaned', flush=True)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", RAISING.format(body=body)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Where the tests run in the background of a script, SIGINT is ignored, and children inherit that.
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
    assert errors == "kdnas: interrupted; the same command goes on from here\n"


def interrupted(body: str, presses: int, seconds: float) -> tuple[int, str]:
    """Exit code and errors of a command in a group of its own that gets Ctrl-C so long after its first line."""
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


@pytest.mark.parametrize("seconds", [0.3, 1.5, 3.0])
def test_ctrl_c_pressed_twice_while_processes_read_docstrings(seconds: float) -> None:
    """A terminal sends Ctrl-C to the whole group: a reader that died with a queue's lock left the command waiting for ever."""
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


def test_ctrl_c_while_processes_start() -> None:
    """A reader that was just forked had the command's own handler still, and died of it."""
    assert interrupted(STARTING.strip(), 1, 0) == (130, "kdnas: interrupted; the same command goes on from here\n")


def test_a_missing_extra_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cli.COMMANDS, "search", cli.Command("no_such_package.run:f", ""))
    with pytest.raises(KdnasError, match=r"pip install 'kdnas\[train,export,serve\]'"):
        cli.load_command("search")
