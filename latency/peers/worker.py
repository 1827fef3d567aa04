"""A library's process: one JSON line in, one out. It ends at the end of its input, so it does not outlive its parent.

Run as `python -m kdnas.latency.peers.worker`. The first line is `{"library", "job"}`. Requests, and their answers:

- `{"do": "prepare"}` writes the library's own form of the model: `{}`
- `{"do": "open"}` loads the model: `{"ids": whether it takes ids, "bytes": size of its files, "versions": of its packages}`
- `{"do": "keep", "sets": {name: texts or rows of ids}}` stores inputs for later requests: `{}`
- `{"do": "vectors", "set"}`: `{"vectors": N rows of D numbers}`
- `{"do": "time", "set", "batch"}` times one call for each batch of a set, after untimed calls: `{"ms": one number a call}`
- `{"do": "pairs", "first", "second", "batch"}`: `{"cosines": of the vectors of two sets, row by row}`

A request that raises is answered by `{"error": its first line}`; the process continues.
"""

import gc
import json
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from kdnas.latency.lines import answer, serve_lines
from kdnas.latency.peers.libraries import Job, Library, Opened, library_of

WARM_CALLS = 8  # untimed calls before each set: they wake threads and fill caches


def serve(requests: TextIO, answers: TextIO) -> None:
    """Answer each line of `requests` on `answers`."""
    first = requests.readline()
    if not first:
        return
    setup = json.loads(first)
    peer = Peer(setup["library"], Job.from_line(setup["job"]))
    answer(answers, {})
    for line in iter(requests.readline, ""):
        answer(answers, peer.answer(json.loads(line)))


class Peer:
    """A library with one job.

    Args:
        library: name in `kdnas.latency.peers.libraries`.
        job: what to prepare and open.
    """

    def __init__(self, library: str, job: Job) -> None:
        self._library: Library = library_of(library)
        self._job = job
        self._opened: Opened | None = None
        self._sets: dict[str, list[Any]] = {}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to one request."""
        actions: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "prepare": self._prepare,
            "open": self._open,
            "keep": self._keep,
            "vectors": self._vectors,
            "time": self._time,
            "pairs": self._pairs,
        }
        try:
            return actions[request["do"]](request)
        except Exception as error:  # libraries raise anything for a model that they cannot read
            lines = str(error).strip().splitlines()
            return {"error": f"{type(error).__name__}: {lines[0] if lines else 'no message'}"}

    @property
    def opened(self) -> Opened:
        assert self._opened is not None, "the first request opens the model"
        return self._opened

    def _prepare(self, _: dict[str, Any]) -> dict[str, Any]:
        self._library.prepare(self._job)
        return {}

    def _open(self, _: dict[str, Any]) -> dict[str, Any]:
        self._opened = self._library.open_model(self._job)
        return {
            "ids": self._opened.embed_ids is not None,
            "bytes": sum(map(bytes_of, self._opened.files)),
            "versions": {name: metadata.version(name) for name in self._library.PACKAGES},
        }

    def _keep(self, request: dict[str, Any]) -> dict[str, Any]:
        self._sets |= request["sets"]
        return {}

    def _vectors(self, request: dict[str, Any]) -> dict[str, Any]:
        """One text a call, so that no padding enters."""
        items = self._sets[request["set"]]
        call = self._call(items)
        return {"vectors": [np.asarray(call([item]), dtype=np.float64)[0].tolist() for item in items]}

    def _time(self, request: dict[str, Any]) -> dict[str, Any]:
        items, batch = self._sets[request["set"]], request["batch"]
        return {"ms": timed(self._call(items), [items[first : first + batch] for first in range(0, len(items), batch)])}

    def _pairs(self, request: dict[str, Any]) -> dict[str, Any]:
        first, second = (self._embedded(request[side], request["batch"]) for side in ("first", "second"))
        return {"cosines": np.einsum("nd,nd->n", first, second).round(6).tolist()}

    def _embedded(self, name: str, batch: int) -> np.ndarray:
        """Unit vectors (N, D) of a set, texts of similar length together."""
        texts = self._sets[name]
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        parts = [
            self.opened.embed([texts[index] for index in order[first : first + batch]])
            for first in range(0, len(order), batch)
        ]
        vectors = np.empty((len(texts), np.asarray(parts[0]).shape[1]))
        vectors[order] = np.concatenate(parts)
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

    def _call(self, items: Sequence[Any]) -> Callable[[Any], Any]:
        """The function for texts, or the one for rows of ids."""
        if isinstance(items[0], str):
            return self.opened.embed
        assert self.opened.embed_ids is not None, "the parent asks only peers that take ids"
        return self.opened.embed_ids


def timed(call: Callable[[Any], Any], batches: Sequence[Any]) -> list[float]:
    """Milliseconds of a call on each batch, after untimed calls on the last ones."""
    for batch in batches[-WARM_CALLS:]:
        call(batch)
    times: list[float] = []
    collecting = gc.isenabled()
    gc.disable()
    try:
        for batch in batches:
            start = time.perf_counter_ns()
            call(batch)
            times.append(round((time.perf_counter_ns() - start) / 1e6, 5))
    finally:
        if collecting:
            gc.enable()
    return times


def bytes_of(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; 0 if it is missing."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size if path.is_file() else 0


if __name__ == "__main__":
    serve_lines(serve)
