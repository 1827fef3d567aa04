"""A process that answers lines of JSON: the other side of `kdnas.latency.process`."""

import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, TextIO


def serve_lines(serve: Callable[[TextIO, TextIO], None]) -> None:
    """Run `serve` on the standard input and a copy of the standard output until the input ends.

    All other output goes to the standard error, because what libraries print must not enter the protocol.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent closes the pipe
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        serve(sys.stdin, answers)
    except BrokenPipeError:
        os._exit(0)


def answer(answers: TextIO, value: dict[str, Any]) -> None:
    """Write one line and flush it."""
    answers.write(json.dumps(value) + "\n")
    answers.flush()
