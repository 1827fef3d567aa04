"""Requests a second and latency of `kdnas serve`, LitServe and one text at a time, with the same graph, in turns.

Run as `python tests/bench/serving_peers.py CLASSIFIER TEXTS [--rounds 5] [--seconds 5]`. Each peer runs in an environment of its
own, which is made first and removed at the end. Prints one JSON line for each peer, number of clients and round, then for each
peer the most requests a second of all loads whose p99 is within the bound.
"""

import argparse
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from kdnas.export.folder import graph_of
from kdnas.export.session import Session
from kdnas.serving.bench import load_of, read_texts
from kdnas.serving.run import bind
from kdnas.serving.server import url_of

SERVERS = Path(__file__).resolve().parent / "peer_servers"
FORM = "onnxruntime-f32"
CLIENTS = (1, 8, 32)
SHARED = ("numpy==2.4.6", "onnxruntime==1.31.1", "tokenizers==0.22.2")
PEERS = {
    "litserve": ("litserve_peer.py", ("litserve==0.2.19",)),
    "one at a time": ("one_at_a_time.py", ("fastapi", "httptools", "uvicorn", "uvloop")),
}
START_SECONDS = 60.0


def free_url() -> str:
    """An address that was free a moment ago."""
    with bind("127.0.0.1", 0) as sock:
        return url_of(sock)


def environment(folder: Path, packages: Sequence[str]) -> Path:
    """The interpreter of a new environment with these packages."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", *SHARED, *packages], check=True)
    return python


@contextmanager
def running(command: Sequence[str | Path], url: str) -> Iterator[str]:
    """A service that answers; on exit, it ends with all its processes."""
    with subprocess.Popen(command, cwd=SERVERS, start_new_session=True) as process:
        try:
            until = time.monotonic() + START_SECONDS
            while not answers(url):
                if process.poll() is not None or time.monotonic() > until:
                    raise SystemExit(f"{command[1]}: did not start")
                time.sleep(0.2)
            yield url
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # LitServe's workers do not end with their parent


def answers(url: str) -> bool:
    """Whether a request gets scores."""
    host, port = url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    try:
        connection.request("POST", "/predict", json.dumps({"text": "a"}), {"content-type": "application/json"})
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def best_within(rows: Sequence[dict[str, Any]], bound_ms: float) -> float:
    """The most requests a second, as the median over the rounds, of a load whose median p99 is within the bound; else 0."""
    found = [0.0]
    for number in CLIENTS:
        loads = [row for row in rows if row["clients"] == number]
        if median(row["p99_ms"] for row in loads) <= bound_ms:
            found.append(median(row["requests_per_second"] for row in loads))
    return max(found)


def main() -> None:
    """Start all services, measure them in turns, and print the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("texts", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bound-ms", type=float, default=50.0, help="p99 at which the services are compared")
    given = parser.parse_args()
    bodies = [json.dumps({"text": text, "truncate": True}).encode() for text in read_texts(given.texts)]
    length = Session(given.model, FORM, 1).max_seq_len
    rows: dict[str, list[dict[str, Any]]] = {}
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = free_url()
        words = ["--form", FORM, "--threads", str(given.threads), "--port", url.rsplit(":", 1)[1]]
        program = [sys.executable, "-m", "kdnas.cli", "serve", str(given.model.resolve()), *words]
        urls = {"kdnas": stack.enter_context(running(program, url))}
        for name, (script, packages) in PEERS.items():
            url = free_url()
            model = given.model.resolve()
            words = [str(model / graph_of(FORM)), str(model / "tokenizer.json"), str(length), str(given.threads)]
            python = environment(home / script, packages)
            urls[name] = stack.enter_context(running([python, script, *words, url.rsplit(":", 1)[1]], url))
        for _ in range(given.rounds):
            for number in CLIENTS:
                for name, url in urls.items():
                    row = load_of(f"{url}/predict", bodies, number, None, given.seconds)
                    rows.setdefault(name, []).append(row)
                    print(json.dumps({"service": name} | row), flush=True)
    for name, found in rows.items():
        print(f"{name}: {best_within(found, given.bound_ms):.0f} requests/s with p99 within {given.bound_ms:g} ms")


if __name__ == "__main__":
    main()
