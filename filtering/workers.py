"""Units in several processes, of a Ray cluster or of this host: each writes and commits units; no text passes the driver."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from kdnas.cluster import TRIES, Workers
from kdnas.errors import KdnasError
from kdnas.filtering.cascade import scoring_of
from kdnas.filtering.commits import RunFolder
from kdnas.filtering.decision import Policy
from kdnas.filtering.gate import Gate
from kdnas.filtering.gate_options import GateOptions
from kdnas.filtering.open_store import open_store
from kdnas.filtering.options import FilterOptions
from kdnas.filtering.plan import Unit
from kdnas.filtering.scoring import Scorer
from kdnas.filtering.units import Failures, Scoring, Speed, attempt_unit
from kdnas.processes import finished
from kdnas.store.progress import stage


@dataclass(frozen=True)
class WorkerSettings:
    """What a worker needs; the paths must be the same on all hosts.

    Args:
        output: the run's output, an absolute path or a URL.
        model: the exported classifier.
        form: form of the model.
        policy: decides about documents.
        options: what is read, how it is scored, and what is written.
        gate_options: settings of the gate.
        gate: the gate, if the run uses one.
    """

    output: str
    model: Path
    form: str
    policy: Policy
    options: FilterOptions
    gate_options: GateOptions
    gate: Gate | None


Work = Callable[[Unit], dict[str, Any] | str]  # filters a unit: its totals, or the message of its failure


def run_on_cluster(address: str, folder: RunFolder, settings: WorkerSettings) -> None:
    """Score, write and commit every missing unit on a cluster, with one thread per worker.

    Raises:
        KdnasError: units failed, all others are committed; or there is no cluster.
    """
    missing = list(folder.missing())
    with Workers(address, partial(make_worker, settings), _dead) as workers:
        _follow(missing, workers(missing))


def run_in_processes(folder: RunFolder, make: Callable[[], Work]) -> None:
    """Write and commit every missing unit in one process per core; `make`, which is pickled, makes the function of each.

    Raises:
        KdnasError: units failed, or a process was killed. All others are committed.
    """
    missing = list(folder.missing())
    calls = {index: (unit,) for index, unit in enumerate(missing)}
    try:
        _follow(missing, finished(_work_on, calls, _start, make))
    except BrokenProcessPool as error:
        raise KdnasError("a process was killed, perhaps for lack of memory; run the same command again") from error


def _follow(missing: Sequence[Unit], results: Iterable[tuple[int, dict[str, Any] | str]]) -> None:
    """Show the progress of units that others finish."""
    failures, speed = Failures(), Speed()
    with stage("filter", sum(unit.bytes for unit in missing)) as progress:
        for index, found in results:
            if isinstance(found, str):
                failures.add(found)
            else:
                speed.add(found)
            progress.advance(missing[index].bytes, speed.line())
    failures.require_none()


_work: list[Work] = []  # of this process


def _start(make: Callable[[], Work]) -> None:
    _work[:] = [make()]


def _work_on(unit: Unit) -> dict[str, Any] | str:
    return _work[0](unit)


def make_worker(settings: WorkerSettings) -> Work:
    """The function of a worker: filters a unit and returns its totals, or the message of its failure."""
    scorer = Scorer(settings.model, settings.form, 1, verify=False)  # the driver has verified the files
    folder = RunFolder(open_store(settings.output), list(settings.policy.labels))
    scoring = scoring_of(scorer, settings.policy, settings.options, settings.gate_options, settings.gate)
    return partial(filter_one, folder, scoring, settings.policy, settings.options)


def filter_one(
    folder: RunFolder, scoring: Scoring, policy: Policy, options: FilterOptions, unit: Unit
) -> dict[str, Any] | str:
    """Filter a unit; returns its totals, or the message of its failure."""
    found = attempt_unit(folder, unit, scoring, policy, options)
    return found if isinstance(found, str) else dict(found["totals"])


def _dead(unit: Unit) -> str:
    return f"unit {unit.number} ({unit.segments[0].file.url}): its worker died {TRIES} times"
