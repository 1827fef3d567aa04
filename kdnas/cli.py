"""The entry point `kdnas`: runs one command, and reports its outcome as an exit code and, for an error, one line."""

import os
import shlex
import signal
import sys
import time
import traceback
from pathlib import Path
from types import FrameType
from typing import NoReturn

from kdnas import __version__
from kdnas.commands import gate_usage, load_command, split_command, usage
from kdnas.errors import KdnasError, Terminated
from kdnas.extras import explain_missing, require_for_values

HELP = ("-h", "--help")


def main(argv: list[str] | None = None) -> NoReturn:
    """Entry point of `kdnas`; always exits."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["help"]:
        argv = [*argv[1:], "--help"]
    if not argv or argv[0] in HELP:
        print(usage())
        sys.exit(0)
    if argv[0] in ("-V", "--version"):
        print(__version__)
        sys.exit(0)
    if argv[0] == "gate" and (len(argv) == 1 or argv[1] in HELP):
        print(gate_usage())
        sys.exit(0)
    # Several commands have worker processes, so the parent must run its `finally` blocks when it is terminated.
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:  # background jobs of a shell script ignore Ctrl-C
            signal.signal(number, _raise_once)
    sys.exit(_run(argv))


_signals: list[tuple[int, float]] = []  # number and time in seconds of each signal that was raised as an exception
REPEAT_SECONDS = 1.0


def _raise_once(number: int, _frame: FrameType | None) -> None:
    """Raise for a signal. Ignore repeats within a second: a second Ctrl-C would interrupt the clean-up."""
    now = time.monotonic()
    if not _signals or now - _signals[-1][1] > REPEAT_SECONDS:
        _signals.append((number, now))
        raise KeyboardInterrupt if number == signal.SIGINT else Terminated


def _run(argv: list[str]) -> int:
    from kdnas.store.outcome import exit_code_of, stdout_text
    from kdnas.store.progress import is_first_process, show_messages

    try:
        name, rest = split_command(argv)
        function = load_command(name)
        from kdnas.arguments import command_help, parse

        if any(word in HELP for word in rest):
            print(command_help(name, function))
            return 0
        show_messages()  # before parsing, because parsing logs a warning about ignored variables
        values = parse(name, function, rest)
        require_for_values(values)
        result = function(**values)
        if is_first_process() and (text := stdout_text(result)):
            print(text, flush=True)
        return exit_code_of(result)
    except (Exception, KeyboardInterrupt, Terminated) as error:
        return _exit_code(error, argv)


def _exit_code(error: BaseException, argv: list[str]) -> int:
    """Print why the command ended. The first signal decides, because a library may have replaced its exception by another."""
    first = _signals[0][0] if _signals else None
    if first:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # the command is already ending
    if first == signal.SIGTERM or isinstance(error, Terminated):
        print("kdnas: terminated; the same command resumes from here", file=sys.stderr)
        return 143
    if first == signal.SIGINT or isinstance(error, KeyboardInterrupt):
        print("kdnas: interrupted; the same command resumes from here", file=sys.stderr)
        return 130
    if isinstance(error, KdnasError):
        print(f"kdnas: {error}", file=sys.stderr)
        return error.exit_code
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return _internal_error(error, argv)


def _internal_error(error: BaseException, argv: list[str]) -> int:
    """Write the traceback to a log and print one line; `KDNAS_DEBUG=1` prints the traceback instead."""
    if os.environ.get("KDNAS_DEBUG"):
        traceback.print_exception(error)
        return 1
    missing = explain_missing(error) if isinstance(error, ModuleNotFoundError) else ""
    first = (str(error).strip() or "no message").splitlines()[0]
    message = missing or f"internal error: {type(error).__name__}: {first}"
    log = append_error(error, argv)
    where = f" (traceback in {log})" if log else ""
    print(f"kdnas: {message}{where}; finished stages are kept", file=sys.stderr)
    return 1


def state_folder() -> Path:
    """`$XDG_STATE_HOME/kdnas`, by default `~/.local/state/kdnas`.

    Raises:
        RuntimeError: the user has no home folder.
    """
    base = os.environ.get("XDG_STATE_HOME", "")  # the XDG specification says to ignore relative paths
    return (Path(base) if os.path.isabs(base) else Path.home() / ".local" / "state") / "kdnas"


def append_error(error: BaseException, argv: list[str]) -> Path | None:
    """Append a traceback with time, version and command line to `error.log`; None if the file cannot be written."""
    head = f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} kdnas {__version__}: {shlex.join(['kdnas', *argv])}\n"
    try:
        log = state_folder() / "error.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(head + "".join(traceback.format_exception(error)) + "\n")
    except (OSError, RuntimeError):
        return None
    return log


if __name__ == "__main__":
    main()
