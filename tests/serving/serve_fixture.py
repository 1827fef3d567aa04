"""A running `kdnas serve` with a real socket."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest


class Served:
    """A running `kdnas serve`."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process, self.url = process, url
        self.client = httpx.Client(base_url=url, timeout=30, trust_env=False)

    def post(self, **body: object) -> httpx.Response:
        return self.client.post("/predict", json=body)

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels; 0 if it has no value yet."""
        lines = self.client.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith((name + " ", name + "{")))


def post(served: Served, text: str, path: str = "/predict", **headers: str) -> httpx.Response:
    body = {"inputs": text} if path == "/predict" else {"text": text}
    return served.client.post(path, json=body, headers=headers)


def wait_until(condition: Callable[[], bool]) -> None:
    """Return when the condition holds; fail after 20 seconds."""
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


@contextmanager
def serving(model: Path | str, *words: object, patch: str = "", stdout: int | None = None) -> Iterator[Served]:
    """Start the service on a free port, wait until it is ready, and kill it at the end if it still runs.

    Args:
        model: folder of the model, or NAME=FOLDER.
        words: further options.
        patch: Python code that runs first in the process, to make a model fail.
        stdout: as for `subprocess.Popen`.
    """
    argv = list(map(str, ["serve", "--model", model, "--port", 0, "--threads", 1, *words]))
    command = [sys.executable, "-c", f"{patch}\nfrom kdnas.cli import main\nmain({argv!r})"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=stdout, text=True) as process:
        try:
            assert process.stderr is not None
            lines = []
            for line in process.stderr:
                lines.append(line)
                if "listening on" in line:
                    break
            else:
                pytest.fail(f"the service ended with code {process.wait(10)} before it listened:\n{''.join(lines)}")
            served = Served(process, line.split("listening on ")[1].split()[0])
            with served.client:
                wait_until(lambda: served.client.get("/startupz").status_code == 200)
                yield served
        finally:
            if process.poll() is None:
                process.kill()


class Clients:
    """Clients that send requests without pause, each on a kept connection, and count the answers.

    Args:
        url: address of the service.
        number: number of clients.
        again: whether a client connects again after a failed request, instead of ending.
    """

    def __init__(self, url: str, number: int, again: bool = False) -> None:
        self.url, self.again = url, again
        self.stopped = threading.Event()
        self.statuses: list[int] = []
        self.errors: list[Exception] = []
        self.closed = 0
        self.threads = [threading.Thread(target=self._send) for _ in range(number)]
        for thread in self.threads:
            thread.start()

    def _send(self) -> None:
        with httpx.Client(base_url=self.url, timeout=20, trust_env=False) as client:
            while not self.stopped.is_set():
                try:
                    answer = client.post("/predict", json={"text": "You are very kind."})
                except httpx.TransportError as error:
                    if self.again:
                        self.errors.append(error)
                        continue
                    if not isinstance(error, httpx.ConnectError):  # it no longer listens: nothing was accepted
                        self.errors.append(error)
                    return
                self.statuses.append(answer.status_code)
                if answer.headers.get("connection") == "close":
                    self.closed += 1
                    return

    def join(self) -> None:
        self.stopped.set()
        for thread in self.threads:
            thread.join(30)
