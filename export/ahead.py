"""A second process that writes some forms of an export, while this one writes and measures the others.

Exporters and quantisers are mostly serial Python, so two processes use two cores.
"""

import contextlib
import os
import pickle
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from kdnas.export.silence import silence_exporters

COMMAND = "from kdnas.export.ahead import serve; serve()"
Call = tuple[Callable[..., object], tuple[Any, ...]]


class Ahead:
    """A second process that fills folders; a context manager, whose end stops the process.

    The process also ends if this one is killed.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", COMMAND],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._asked: list[Path] = []
        self._written: set[Path] = set()

    def __enter__(self) -> "Ahead":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        with contextlib.suppress(BrokenPipeError):  # a call that the process has not read
            self._process.communicate()

    def write(self, folder: Path, function: Callable[..., object], *args: Any) -> None:
        """Let the process call `function(*args, folder)`, after earlier calls. The function is one of a module."""
        assert self._process.stdin is not None
        self._asked.append(folder)
        with contextlib.suppress(BrokenPipeError):
            pickle.dump((function, (*args, folder)), self._process.stdin)
            self._process.stdin.flush()

    def wait(self) -> None:
        """Wait until the process has nothing to do."""
        while self._asked:
            self._receive()

    def has_written(self, folder: Path) -> bool:
        """Whether the process was asked for a folder and wrote it; waits for it.

        After an error in the process the answer is no: the caller then writes the folder and meets the error itself.
        """
        while folder in self._asked:
            self._receive()
        return folder in self._written

    def _receive(self) -> None:
        assert self._process.stdout is not None
        folder = self._asked.pop(0)
        with contextlib.suppress(EOFError):  # the process was killed, for example because memory was short
            if pickle.load(self._process.stdout):
                self._written.add(folder)


def serve() -> None:
    """The second process: does the calls that come on stdin, and answers on stdout whether it could."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # exporters print
    calls: queue.SimpleQueue[Call] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(calls,), daemon=True).start()
    with silence_exporters():
        while True:
            function, args = calls.get()
            try:
                function(*args)
                done = True
            except Exception:
                done = False
            pickle.dump(done, answers)
            answers.flush()


def _read(calls: "queue.SimpleQueue[Call]") -> None:
    """Queue all calls; end the process when stdin closes, because the exporting process has ended."""
    with contextlib.suppress(EOFError):
        while True:
            calls.put(pickle.load(sys.stdin.buffer))
    os._exit(0)
