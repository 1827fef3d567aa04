"""Measuring processes and their replacement when they die."""

import json
import select
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sized
from typing import Any, Self

from kdnas.errors import KdnasError
from kdnas.store.host import child_environment
from kdnas.store.progress import say

ANSWER_SECONDS = 600.0
ATTEMPTS = 3


class WorkerError(Exception):
    """The worker process ended or hung; the message gives the reason if it is known."""


class Worker:
    """A measuring process behind a pipe. Reads block, so the parent uses no core during a measurement.

    Args:
        setup: the first line for the process.
        module: module that the process runs.
        python: Python that runs it; by default this one.
        environment: its environment variables; by default those of this process with the threads of the setup.
        answer_seconds: seconds after which a process without an answer counts as hung.
    """

    def __init__(
        self,
        setup: dict[str, Any],
        module: str = "kdnas.latency.worker",
        python: str = sys.executable,
        environment: dict[str, str] | None = None,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed in __exit__)
        self._answer_seconds = answer_seconds
        self._process = subprocess.Popen(
            [python, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=child_environment(OMP_NUM_THREADS=str(setup["threads"])) if environment is None else environment,
        )
        self._setup = setup

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Kill the process; the parent already has its measurements."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            try:
                if stream is not None:
                    stream.close()
            except BrokenPipeError:
                continue
        self._errors.close()

    def start(self) -> None:
        """Load the libraries and the reference.

        Raises:
            WorkerError: loading failed.
        """
        self.ask(self._setup)

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send one line and wait for its answer.

        Raises:
            WorkerError: the process ended or hung without an answer.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            ready, _, _ = select.select([self._process.stdout], [], [], self._answer_seconds)
            line = self._process.stdout.readline() if ready else ""
        except BrokenPipeError:
            line, ready = "", [self._process.stdout]
        if not ready:
            raise WorkerError(f"no answer within {self._answer_seconds:.0f} s")
        if not line.endswith("\n"):
            raise WorkerError(self._reason())
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _reason(self) -> str:
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        how = f"killed by signal {-code} (the system sends 9 if memory runs out)" if code < 0 else f"exit code {code}"
        return f"{how}; last line of its stderr: {lines[-1] if lines else 'none'}"


class Processes:
    """A sequence of measuring processes, each of which replaces the last.

    Args:
        what: the stage's name in messages.
        setup: the first line for each process.
    """

    def __init__(self, what: str, setup: dict[str, Any]) -> None:
        self._what, self._setup = what, setup
        self._deaths = 0

    def run(self, measured: Sized, work: Callable[[Worker], None]) -> None:
        """Start a fresh process and do some work with it; if it dies, print a message and return, so the caller can continue.

        Args:
            measured: list that `work` appends to; the count of deaths restarts if a process added to it before it died.
            work: sends requests to the process.

        Raises:
            KdnasError: processes died `ATTEMPTS` times without a measurement in between.
        """
        before = len(measured)
        try:
            with Worker(self._setup) as worker:
                worker.start()
                work(worker)
            self._deaths = 0
        except WorkerError as error:
            self._deaths = self._deaths + 1 if len(measured) == before else 1
            if self._deaths == ATTEMPTS:
                raise KdnasError(
                    f"{self._what}: the measuring process died {ATTEMPTS} times: {error}. "
                    "Measurements are kept; run the same command again to resume"
                ) from error
            say(f"{self._what}: the measuring process died ({error}); starting a new one")
