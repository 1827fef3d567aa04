"""A library's worker process, seen from the parent."""

import time
from pathlib import Path
from typing import Any

import psutil

from kdnas.latency.peers.environment import environment_variables
from kdnas.latency.peers.libraries import Job
from kdnas.latency.process import Worker, WorkerError

LONGEST_ANSWER_S = 1800.0  # distilling static embeddings of a large vocabulary takes minutes


class PeerProcess(Worker):
    """One library with one job in a process of its own.

    Args:
        python: Python of the library's environment.
        library: name of the library.
        job: the job.
    """

    def __init__(self, python: Path, library: str, job: Job) -> None:
        self._began = time.monotonic()
        super().__init__(
            {"library": library, "job": job.to_line()},
            "kdnas.latency.peers.worker",
            str(python),
            environment_variables(python, job.threads),
            LONGEST_ANSWER_S,
        )

    def prepare(self) -> None:
        """Write the library's own form of the model.

        Raises:
            WorkerError: the library cannot.
        """
        self.start()
        self.ask({"do": "prepare"})

    def open(self, text: str) -> dict[str, Any]:
        """Load the model and embed one text.

        Returns:
            The worker's answer to `open`, with `start_s`: seconds from the start of the process to the first vector.

        Raises:
            WorkerError: the library cannot load the model.
        """
        self.start()
        opened = self.ask({"do": "open"})
        self.ask({"do": "keep", "sets": {"first": [text]}})
        self.ask({"do": "vectors", "set": "first"})
        return {**opened, "start_s": round(time.monotonic() - self._began, 3)}

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send a request and wait for its answer.

        Raises:
            WorkerError: the process ended, hung, or answered with an error.
        """
        answer = super().ask(request)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def memory_mb(self) -> float:
        """Resident memory in MB (10^6 bytes).

        Raises:
            WorkerError: the process ended.
        """
        try:
            return round(psutil.Process(self._process.pid).memory_info().rss / 1e6, 1)
        except psutil.NoSuchProcess as error:
            raise WorkerError(self._reason()) from error
