"""Does `kdnas serve` keep its memory over many requests, and every accepted request over reloads and SIGTERMs?

Run as `python tests/bench/serving_endurance.py CLASSIFIER [--requests 100000] [--reloads 20] [--ends 50]` with the folder of an
exported model; `--processes N` for several serving processes. Real processes and sockets, without a limit of the rate:

- memory: 4 clients send texts of 3 tokens to as many as the model reads, whose lengths are spread evenly by their
  logarithm. The first tenth warms up; then the resident memory of all serving processes is read 40 times.
- reloads: 8 clients send without pause while the models are reloaded. Each answer must be 200.
- ends: as often, a service under the load of 8 clients gets SIGTERM at a random time. It must end with exit code 0, and each
  request on a connection that it had accepted must be answered with 200.

Prints the counts. The exit code is 1 if a request was lost or the memory grew by more than 5 %.
"""

import argparse
import http.client
import json
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from kdnas.store.host import host_line

MOST_GROWTH = 0.05
READINGS = 40
WARM_FRACTION = 0.1
HEADERS = {"content-type": "application/json"}


@contextmanager
def serving(model: Path, processes: int) -> Iterator[tuple[subprocess.Popen[str], str, int]]:
    """The process, host and port of a service that is ready; it is killed at the end if it still runs."""
    command = [sys.executable, "-m", "kdnas.cli", "serve", str(model), "--port", "0", "--threads", "1"]
    command += ["--processes", str(processes)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            line = next(line for line in process.stderr if "listening on" in line)
            threading.Thread(target=process.stderr.read, daemon=True).start()
            host, port = re.search(r"http://([^:]+):(\d+)", line).groups()  # type: ignore[union-attr]
            until = time.monotonic() + 60
            while request(connection := http.client.HTTPConnection(host, int(port), 30), "GET", "/readyz") != 200:
                assert time.monotonic() < until
                time.sleep(0.1)
            connection.close()
            yield process, host, int(port)
        finally:
            if process.poll() is None:
                process.kill()


def request(connection: http.client.HTTPConnection, method: str, path: str, text: str | None = None) -> int:
    """The status of an answer, which is read."""
    connection.request(method, path, None if text is None else json.dumps({"text": text}), HEADERS)
    answer = connection.getresponse()
    answer.read()
    return answer.status


class Clients:
    """Clients with one connection each that send until they are stopped or the service no longer listens.

    Args:
        number: number of clients.
        host: address of the service.
        port: its port.
        text: gives the next text; None ends a client.
    """

    def __init__(self, number: int, host: str, port: int, text: Callable[[], str | None]) -> None:
        self.counts = Counter[str]()
        self._stopped, self._lock = threading.Event(), threading.Lock()
        self._host, self._port, self._text = host, port, text
        self._threads = [threading.Thread(target=self._send, daemon=True) for _ in range(number)]
        for thread in self._threads:
            thread.start()

    @property
    def alive(self) -> bool:
        """Whether a client still sends."""
        return any(thread.is_alive() for thread in self._threads)

    @property
    def done(self) -> int:
        """Number of requests so far."""
        return self.counts.total()

    def _send(self) -> None:
        while not self._stopped.is_set():
            connection = http.client.HTTPConnection(self._host, self._port, 60)
            try:
                connection.connect()
            except ConnectionRefusedError:  # it does not listen: nothing was accepted
                return
            while not self._stopped.is_set() and connection.sock is not None:
                text = self._text()
                if text is None:
                    return
                try:
                    outcome = str(request(connection, "POST", "/predict", text))
                except (OSError, http.client.HTTPException) as error:
                    outcome = type(error).__name__
                    connection.close()
                with self._lock:
                    self.counts[outcome] += 1
            connection.close()

    def join(self) -> Counter[str]:
        """End them; returns the numbers of answers by status, and of lost requests by the name of the error."""
        self._stopped.set()
        for thread in self._threads:
            thread.join(90)
        return self.counts


def resident_mb(process: subprocess.Popen[str]) -> float:
    """Resident memory of the process and its children in megabytes."""
    parent = psutil.Process(process.pid)
    return sum(one.memory_info().rss for one in [parent, *parent.children()]) / 1e6


def random_text(longest: int) -> str:
    """A text of 3 to `longest` tokens, with the two that every text has."""
    return "a " * (round(longest ** random.uniform(0, 1)) - 3) + "a"


def memory(model: Path, processes: int, requests: int) -> bool:
    """Whether the memory stays within 5 % of its value after the warm-up."""
    with serving(model, processes) as (process, host, port):
        connection = http.client.HTTPConnection(host, port, 30)
        connection.request("GET", "/info")
        longest = int(json.loads(connection.getresponse().read())["max_input_length"])
        connection.close()
        left = iter(range(requests))
        clients = Clients(4, host, port, lambda: None if next(left, None) is None else random_text(longest))
        readings: list[float] = []
        while clients.alive and len(readings) <= READINGS:
            if clients.done >= requests * (WARM_FRACTION + (1 - WARM_FRACTION) * len(readings) / READINGS):
                readings.append(resident_mb(process))
            time.sleep(0.02)
        counts = clients.join()
    growth = max(readings) / readings[0] - 1
    print(
        f"memory: {dict(counts)}, 3 to {longest} tokens; {readings[0]:.1f} MB after the warm-up, then {min(readings):.1f} to "
        f"{max(readings):.1f} MB, {readings[-1]:.1f} at the end: growth {growth:.1%}",
        flush=True,
    )
    return counts == {"200": requests} and growth <= MOST_GROWTH


def reloads(model: Path, processes: int, number: int) -> bool:
    """Whether no request is lost while the models are reloaded."""
    with serving(model, processes) as (process, host, port):
        clients = Clients(8, host, port, lambda: "You are very kind.")
        began = time.monotonic()
        for done in range(1, number + 1):
            process.send_signal(signal.SIGHUP)
            while reloaded(host, port) < done:
                time.sleep(0.05)
        seconds = time.monotonic() - began
        counts = clients.join()
    print(f"reloads: {number} in {seconds:.0f} s under load: {dict(counts)}", flush=True)
    return set(counts) == {"200"}


def reloaded(host: str, port: int) -> float:
    """Number of finished reloads."""
    connection = http.client.HTTPConnection(host, port, 30)
    connection.request("GET", "/metrics")
    found = re.search(
        r'^kdnas_reloads_total\{outcome="done"\} (\S+)', connection.getresponse().read().decode(), re.MULTILINE
    )
    connection.close()
    return float(found[1]) if found else 0.0


def ends(model: Path, processes: int, number: int) -> bool:
    """Whether no accepted request is lost when a service under load gets SIGTERM."""
    counts, codes = Counter[str](), Counter[int]()
    for _ in range(number):
        with serving(model, processes) as (process, host, port):
            clients = Clients(8, host, port, lambda: "You are very kind.")
            time.sleep(random.uniform(0.2, 1.0))
            process.terminate()
            codes[process.wait(60)] += 1
            counts += clients.join()
    print(f"ends: {number} SIGTERMs under load: exit codes {dict(codes)}, {dict(counts)}", flush=True)
    return set(counts) == {"200"} and set(codes) == {0}


def main() -> int:
    """Run all three; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--reloads", type=int, default=20)
    parser.add_argument("--ends", type=int, default=50)
    parser.add_argument("--processes", type=int, default=1)
    given = parser.parse_args()
    print(host_line(), f"; {given.processes} serving processes", sep="")
    well = [
        ends(given.model, given.processes, given.ends),
        reloads(given.model, given.processes, given.reloads),
        memory(given.model, given.processes, given.requests),
    ]
    return int(not all(well))


if __name__ == "__main__":
    sys.exit(main())
