"""A second process that writes int8 graphs of an export, while this one writes and measures others.

Quantisers are mostly serial Python, so two processes use two cores. Both send a line of JSON for each message.
"""

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from kdnas.export.recipes import Quantising, write_recipe
from kdnas.export.silence import silence_exporters

COMMAND = "from kdnas.export.ahead import serve; serve()"
DONE, FAILED = b"true\n", b"false\n"


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

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def __enter__(self) -> "Ahead":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        with contextlib.suppress(BrokenPipeError):  # a call that the process has not read
            self._process.communicate()

    def write(self, folder: Path, form: str, name: str, given: Quantising) -> None:
        """Let the process write a recipe of a form to a folder, after those of earlier calls."""
        assert self._process.stdin is not None
        self._asked.append(folder)
        call = {"folder": str(folder), "form": form, "name": name, "source": str(given.source), "task": given.task}
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps({**call, "calibration": given.calibration}).encode() + b"\n")
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
        # There is no line if the process was killed, for example because memory was short.
        if self._process.stdout.readline() == DONE:
            self._written.add(folder)


def serve() -> None:
    """The second process: writes the recipes that come on stdin, and answers on stdout whether it could."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # exporters print
    calls: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(calls,), daemon=True).start()
    with silence_exporters():
        while True:
            call = calls.get()
            try:
                given = Quantising(Path(call["source"]), call["task"], call["calibration"])
                write_recipe(call["form"], call["name"], given, Path(call["folder"]))
                answers.write(DONE)
            except Exception:
                answers.write(FAILED)
            answers.flush()


def _read(calls: "queue.SimpleQueue[dict[str, Any]]") -> None:
    """Queue all calls; end the process when stdin closes, because the exporting process has ended."""
    for line in sys.stdin.buffer:
        calls.put(json.loads(line))
    os._exit(0)
