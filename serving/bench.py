"""`kdnas serve --bench FILE`: latency against load, for the user's own model and texts, over a real socket."""

import http.client
import itertools
import json
import multiprocessing
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from rich.table import Table

from kdnas.errors import KdnasError, UsageError
from kdnas.serving.model import Model
from kdnas.store.outcome import Outcome
from kdnas.store.progress import say, say_table
from kdnas.text.lines import json_rows, text_lines

CLIENTS = (1, 2, 4, 8, 16, 32)
SECONDS = 5.0  # of each load
WARM_SECONDS = 0.5
MAX_TEXTS = 10_000


def read_texts(file: Path) -> list[str]:
    """The texts of a file: one a line, or the field `text` of each line of a `.jsonl`; at most `MAX_TEXTS`.

    Raises:
        UsageError: the file is missing, cannot be read, or has no text.
    """
    what = f"bench '{file}'"
    if not file.is_file():
        raise UsageError(f"{what}: no such file; give a file with one text a line, or a .jsonl with the field 'text'")
    if ".jsonl" in file.suffixes:
        found = [row.get("text") for _, row in itertools.islice(json_rows(file, what), MAX_TEXTS)]
    else:
        found = [line for _, line in itertools.islice(text_lines(file, what), MAX_TEXTS)]
    texts = [text for text in found if isinstance(text, str) and text.strip()]
    if not texts:
        raise UsageError(f"{what}: no texts; give one text a line, or a .jsonl with the field 'text'")
    return texts


def bodies_of(model: Model, texts: Sequence[str]) -> tuple[str, list[bytes]]:
    """Path and bodies of requests with one text each, for a model of any task; long texts are read in windows."""
    task = model.session.task
    rows: list[dict[str, Any]]
    if task == "token-classification":
        path, rows = "/v1/entities", [{"text": text} for text in texts]
    elif task == "question-answering":
        path, rows = "/v1/answer", [{"question": "Who?", "context": text} for text in texts]
    else:
        path = "/predict" if task == "feature-extraction" else "/v1/classify"
        rows = [{"text": text, "too_long": "windows"} for text in texts]
    return path, [json.dumps(row | {"model": model.name}).encode() for row in rows]


def measure(url: str, model: Model, texts: Sequence[str], key: str | None = None) -> Outcome:
    """Send requests of one text each with 1 to 32 clients that wait for each answer, and report latency and throughput.

    The clients run in a process of their own. Use another core for the model than for them, or the numbers include both.

    Args:
        url: address of the service.
        model: its model.
        texts: the texts.
        key: key of the service.

    Raises:
        KdnasError: the clients failed.
    """
    path, bodies = bodies_of(model, texts)
    rows = []
    for number in CLIENTS:
        say(f"serve: {number} clients for {SECONDS:g} s")
        rows.append(load_of(url + path, bodies, number, key, SECONDS))
        if not rows[-1]["requests_per_second"]:
            raise KdnasError(f"no request succeeded with {number} clients; try the texts with one request first")
    table = Table("clients", "requests/s", "p50 ms", "p95 ms", "p99 ms", "refused", "failed")
    for row in rows:
        values = [row["requests_per_second"], row["p50_ms"], row["p95_ms"], row["p99_ms"]]
        table.add_row(
            str(row["clients"]), *(f"{value:.2f}" for value in values), str(row["refused"]), str(row["failed"])
        )
    say_table(table)
    results = {"model": model.name, "form": model.session.form, "threads": model.session.threads, "loads": rows}
    return Outcome(None, results, text=json.dumps(results))


def load_of(url: str, bodies: list[bytes], number: int, key: str | None, seconds: float) -> dict[str, Any]:
    """Latency and throughput of one load, whose clients run in a process of their own.

    Args:
        url: address and path.
        bodies: the bodies, sent in turn.
        number: number of clients.
        key: key of the service.
        seconds: duration, after a short warm-up.

    Raises:
        KdnasError: the clients failed.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_load, args=(sender, url, bodies, number, key, seconds), daemon=True)
    process.start()
    sender.close()
    try:
        row: dict[str, Any] = receiver.recv()
    except EOFError as error:
        raise KdnasError("the clients of the measurement ended early; see the messages above") from error
    finally:
        process.join()
    return row


def _load(sender: Any, url: str, bodies: list[bytes], number: int, key: str | None, seconds: float) -> None:
    """Run the clients and send the summary of their latencies."""
    start = time.perf_counter() + WARM_SECONDS
    numbers = itertools.count()
    found: list[tuple[float, int]] = []
    threads = [
        threading.Thread(
            target=_client,
            args=(url, lambda: bodies[next(numbers) % len(bodies)], key, (start, start + seconds), found),
        )
        for _ in range(number)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sender.send(summary(number, found, seconds))


def _client(
    url: str, body: Callable[[], bytes], key: str | None, period: tuple[float, float], found: list[tuple[float, int]]
) -> None:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
    while (now := time.perf_counter()) < period[1]:
        try:
            connection.request("POST", parts.path, body(), headers)
            answer = connection.getresponse()
            answer.read()
            status = answer.status
        except (OSError, http.client.HTTPException):
            connection.close()
            status = 0
        if now >= period[0]:
            found.append((time.perf_counter() - now, status))


def summary(clients: int, found: Sequence[tuple[float, int]], duration: float) -> dict[str, Any]:
    """Throughput, and percentiles of the latency in ms, of answered requests.

    Args:
        clients: number of clients.
        found: seconds and status of each request.
        duration: seconds of the measurement.
    """
    good = [seconds * 1000 for seconds, status in found if status == 200]
    p50, p95, p99 = np.percentile(good, [50, 95, 99]).tolist() if good else (float("nan"),) * 3
    return {
        "clients": clients,
        "requests_per_second": len(good) / duration,
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
        "refused": sum(status == 429 for _, status in found),
        "failed": sum(status not in (200, 429) for _, status in found),
    }
