"""Opened libraries: the short race of their settings, the comparison of their answers with PyTorch's, memory and quality."""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from kdnas.latency.peers.libraries import library_of
from kdnas.latency.peers.options import PeerOptions
from kdnas.latency.peers.process import PeerProcess
from kdnas.latency.peers.rows import RIGHT, Row, candidates
from kdnas.latency.peers.texts import MIX
from kdnas.latency.process import WorkerError
from kdnas.store.json_files import append_jsonl, read_jsonl
from kdnas.store.progress import say, stage

RACE_ROUNDS, RACE_TEXTS, CHECK_TEXTS = 3, 20, 32
# Threads of some runtimes wait in a busy loop for up to 0.2 s after a call (OpenMP); after this pause the cores are free.
PAUSE_S = 0.3

Times = dict[str, list[float]]  # milliseconds of each call, by workload
Sets = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Workload:
    """Timed calls: a set of inputs in batches.

    Args:
        inputs: name of the set.
        batch: inputs per call.
    """

    inputs: str
    batch: int = 1

    @property
    def name(self) -> str:
        """Name in the log, such as `mix`, `ids-32` or `mix by 8`."""
        return self.inputs if self.batch == 1 else f"{self.inputs} by {self.batch}"


@dataclass
class Live:
    """An opened library.

    Args:
        row: its row, with the settings of the race's winner.
        process: its process.
        opened: what it said when it opened the model.
        agreement: smallest and mean cosine with PyTorch's vectors; None for another model.
        memory_mb: resident memory at rest after the rounds, in MB; None before.
        cosines: of the pairs of sentences; empty before, or without quality.
    """

    row: Row
    process: PeerProcess
    opened: dict[str, Any]
    agreement: tuple[float, float] | None = None
    memory_mb: float | None = None
    cosines: list[float] = field(default_factory=list)


def workloads_of(sets: Sets, batches: Sequence[int], takes_ids: bool) -> list[Workload]:
    """Batch 1 on every set that the library takes, and the mix in batches of texts."""
    single = [Workload(name) for name in sets if takes_ids or not name.startswith("ids-")]
    return [*single, *(Workload(MIX, batch) for batch in batches)]


def open_process(stack: ExitStack, row: Row, sets: Sets) -> Live:
    """Start a library's process, open the model and store the inputs.

    Raises:
        WorkerError: the library cannot.
    """
    process = stack.enter_context(PeerProcess(row.python, row.library, row.job))
    opened = process.open(str(sets[MIX][0]))
    process.ask({"do": "keep", "sets": dict(sets)})
    return Live(row, process, opened)


def race(log: Path, rows: Sequence[Row], sets: Sets, options: PeerOptions, reasons: dict[str, str]) -> list[Row]:
    """Find each row's fastest settings at batch 1 on some texts of the mix: the candidates of a row alternate for some rounds.

    Args:
        log: finished races are read from it, new ones appended.
        rows: the rows.
        sets: the inputs.
        options: give the number of threads, if it is fixed, and the seed.
        reasons: rows that cannot run are added here.

    Returns:
        The rows that can run, with their fastest settings.
    """
    known = {line["row"]: line for line in read_jsonl(log) if "race" in line}
    texts = {MIX: sets[MIX][:RACE_TEXTS]}
    found: list[Row] = []
    with stage("peers: settings", len(rows)) as progress:
        for row in rows:
            settings = candidates(row, options.threads)
            if len(settings) == 1:
                found.append(settings[0])
            elif row.name not in known:
                try:
                    known[row.name] = {"row": row.name, "race": _race(settings, texts, options)}
                    append_jsonl(log, known[row.name])
                except WorkerError as error:
                    reasons[row.name] = f"it cannot run this model: {error}"
            if row.name in known:
                best = min(known[row.name]["race"], key=lambda one: float(one["ms"]))
                found.append(replace(row, job=replace(row.job, threads=best["threads"], choice=best["choice"])))
            progress.advance()
    return found


def _race(rows: Sequence[Row], texts: Sets, options: PeerOptions) -> list[dict[str, Any]]:
    rng = np.random.default_rng(options.seed)
    with ExitStack() as stack:
        runners = [open_process(stack, row, texts) for row in rows]
        means: list[list[float]] = [[] for _ in runners]
        for _ in range(RACE_ROUNDS):
            for index in rng.permutation(len(runners)):
                means[index].append(float(np.mean(turn(runners[index], [Workload(MIX)])[MIX])))
    return [
        {"threads": row.job.threads, "choice": dict(row.job.choice), "ms": round(median(values), 5)}
        for row, values in zip(rows, means, strict=True)
    ]


def turn(live: Live, workloads: Sequence[Workload]) -> Times:
    """Time one library while all others wait."""
    time.sleep(PAUSE_S)
    asked = ({"do": "time", "set": one.inputs, "batch": one.batch} for one in workloads)
    return {one.name: live.process.ask(request)["ms"] for one, request in zip(workloads, asked, strict=True)}


def open_all(stack: ExitStack, rows: Sequence[Row], sets: Sets, reasons: dict[str, str]) -> dict[str, Live]:
    """Open every row; those that cannot go to `reasons`."""
    live: dict[str, Live] = {}
    with stage("peers: open", len(rows)) as progress:
        for row in rows:
            try:
                live[row.name] = open_process(stack, row, sets)
            except WorkerError as error:
                reasons[row.name] = f"it cannot run this model: {error}"
            progress.advance()
    return live


def check_answers(live: dict[str, Live], texts: Sequence[str], least: float, reasons: dict[str, str]) -> None:
    """Compare the vectors of every library that runs the same model with PyTorch's, and leave out those of another model.

    Args:
        live: the libraries by name; those with wrong answers are removed.
        texts: texts to embed.
        least: smallest mean cosine.
        reasons: the removed ones are added here.

    Raises:
        WorkerError: PyTorch itself cannot embed the texts.
    """
    right = _unit_vectors(live[RIGHT].process, texts)
    for name, one in list(live.items()):
        if not library_of(one.row.library).SAME_MODEL:
            continue
        try:
            vectors = _unit_vectors(one.process, texts)
        except WorkerError as error:
            reasons[name] = f"it cannot embed a text: {error}"
            del live[name]
            continue
        if vectors.shape != right.shape:
            reasons[name] = f"its vectors have {vectors.shape[1]} numbers, PyTorch's {right.shape[1]}: not this model"
            del live[name]
            continue
        cosines = (vectors * right).sum(axis=1)
        one.agreement = (round(float(cosines.min()), 5), round(float(cosines.mean()), 5))
        if not cosines.mean() >= least:  # also NaN
            reasons[name] = (
                f"its vectors have a mean cosine of {cosines.mean():.3f} with PyTorch's ({least:g} is needed): not this model"
            )
            del live[name]


def _unit_vectors(process: PeerProcess, texts: Sequence[str]) -> np.ndarray:
    process.ask({"do": "keep", "sets": {"check": list(texts)}})
    vectors = np.array(process.ask({"do": "vectors", "set": "check"})["vectors"])
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))


def finish(live: dict[str, Live], pairs: tuple[Sequence[str], Sequence[str]] | None, batch: int) -> None:
    """Read each library's memory at rest, and let it embed pairs of sentences; a library that dies here keeps its times.

    Args:
        live: the libraries by name.
        pairs: first and second sentences; None without quality.
        batch: sentences per call.
    """
    time.sleep(PAUSE_S)
    with stage("peers: memory and quality", len(live)) as progress:
        for name, one in live.items():
            try:
                one.memory_mb = one.process.memory_mb()
                if pairs is not None:
                    one.process.ask({"do": "keep", "sets": {"first": list(pairs[0]), "second": list(pairs[1])}})
                    request = {"do": "pairs", "first": "first", "second": "second", "batch": batch}
                    one.cosines = one.process.ask(request)["cosines"]
            except WorkerError as error:
                say(f"peers: {name} failed after it was timed ({error}); its quality is not measured")
            progress.advance()
