"""A comparison: processes of both sides alternate until all benchmarks are decided, the looks are used up or time is out."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

from kdnas.gates.decision import Outcome, Rule, Verdict, judge, side_of
from kdnas.gates.process import SideError, Timed
from kdnas.gates.sides import Side
from kdnas.store.json_files import append_jsonl, read_jsonl, write_json
from kdnas.store.progress import say, stage

RESULTS, SUMMARY = "results.jsonl", "summary.json"
Process = Callable[[Side, tuple[str, ...] | None], Timed]


@dataclass(frozen=True)
class Found:
    """Result of a comparison.

    Args:
        verdicts: verdict by benchmark, for those that both sides have.
        failures: reasons for missing verdicts: only the base has the benchmark, a result of zero, a crash.
        new: benchmarks that only the head has; they do not count as failures.
        processes: number of processes that ran.
        seconds: total time of the processes.
        machine: host on which they ran.
    """

    verdicts: dict[str, Verdict]
    failures: dict[str, str] = field(default_factory=dict)
    new: tuple[str, ...] = ()
    processes: int = 0
    seconds: float = 0.0
    machine: dict[str, Any] = field(default_factory=dict)

    @property
    def outcome(self) -> Outcome:
        """The worst outcome of all benchmarks."""
        if self.failures:
            return Outcome.FAILED
        order = (Outcome.REGRESSION, Outcome.UNFIT, Outcome.INCONCLUSIVE)
        found = {verdict.outcome for verdict in self.verdicts.values()}
        return next((one for one in order if one in found), Outcome.OK)

    @property
    def exit_code(self) -> int:
        """3 if a benchmark is slower, 1 if one could not be judged, else 0: undecided or a noisy host does not block."""
        if any(verdict.outcome is Outcome.REGRESSION for verdict in self.verdicts.values()):
            return 3
        return 1 if self.failures else 0


def compare(folder: Path, sides: dict[str, Side], process: Process, rule: Rule, minutes: float) -> Found:
    """Run processes in the order of `side_of` and decide after each look. An interrupted comparison resumes.

    A decided benchmark stays decided and is not timed again.

    Args:
        folder: folder of this comparison.
        sides: `A` is the base, `B` the head.
        process: runs one process with the given benchmarks, or with all for None.
        rule: thresholds and looks.
        minutes: no process starts after this time.
    """
    rows = read_jsonl(folder / RESULTS)
    start = time.monotonic()
    total = 2 * rule.looks[-1]
    if rows:
        say(
            f"gate: resuming after {len(rows)} processes of an earlier run; delete {folder} to start from the beginning"
        )
    with stage("gate", total, len(rows)) as progress:
        for number, look in enumerate(rule.looks):
            only = _undecided(rows, rule, number)
            if only == ():
                break
            while len(rows) < 2 * look:
                if time.monotonic() - start > 60 * minutes:
                    return _judged(rows, rule)
                name = side_of(len(rows))
                begun = time.monotonic()
                try:
                    timed = process(sides[name], only)
                except SideError as error:
                    return _crashed(rows, rule, {"A": "base", "B": "head"}[name], error)
                row = {
                    "side": name,
                    "seconds": timed.seconds,
                    "machine": timed.machine,
                    "took": time.monotonic() - begun,
                }
                append_jsonl(folder / RESULTS, row)
                rows.append(row)
                progress.update(
                    len(rows), ", ".join(f"{k} {1000 * v:.3g} ms" for k, v in list(timed.seconds.items())[:3])
                )
        progress.update(total)
    return _judged(rows, rule)


def _undecided(rows: list[dict[str, Any]], rule: Rule, number: int) -> tuple[str, ...] | None:
    """Benchmarks that earlier looks left undecided; None before the first look, when all run."""
    if number == 0:
        return None
    found = _judged(rows[: 2 * rule.looks[number - 1]], rule)
    return tuple(name for name, verdict in found.verdicts.items() if not verdict.decided)


def _crashed(rows: list[dict[str, Any]], rule: Rule, side: str, error: SideError) -> Found:
    found = _judged(rows, rule)
    return Found(
        found.verdicts,
        {**found.failures, f"process of the {side}": str(error)},
        found.new,
        found.processes,
        found.seconds,
    )


def _judged(rows: list[dict[str, Any]], rule: Rule) -> Found:
    """Verdicts on all benchmarks from the processes so far."""
    rows = rows[: len(rows) // 2 * 2]
    first = rows[: 2 * rule.looks[0]]  # all benchmarks ran in these
    names = {side: _common(first, side) for side in "AB"}
    failures = dict.fromkeys(names["A"] - names["B"], "only the base has it")
    machines = [row["machine"] for row in rows]
    if any(machine != machines[0] for machine in machines):
        failures["host"] = f"processes ran on different hosts or packages: {machines[0]} and {machines[-1]}"
    verdicts = {}
    shared = [name for name in (rows[0]["seconds"] if rows else ()) if name in names["A"] & names["B"]]
    for name in shared:
        try:
            verdicts[name] = judge(_values(rows, name), rule, len(shared))
        except ValueError as error:
            failures[name] = str(error)
    if not shared and "host" not in failures:
        failures["suite"] = "no benchmark ran on both sides"
    return Found(
        verdicts,
        failures,
        tuple(sorted(names["B"] - names["A"])),
        len(rows),
        sum(row["took"] for row in rows),
        machines[0] if machines else {},
    )


def _values(rows: list[dict[str, Any]], name: str) -> list[float]:
    """Seconds of a benchmark in the processes that ran it, up to its decision."""
    return [row["seconds"][name] for row in takewhile(lambda row: name in row["seconds"], rows)]


def _common(rows: list[dict[str, Any]], side: str) -> set[str]:
    """Benchmarks in every process of a side."""
    found = [set(row["seconds"]) for row in rows if row["side"] == side]
    return set.intersection(*found) if found else set()


def save(folder: Path, sides: dict[str, Side], found: Found, rule: Rule) -> dict[str, Any]:
    """Write the JSON summary, and return it."""
    summary = {
        "schema": 1,
        "outcome": found.outcome,
        "exit_code": found.exit_code,
        "base": sides["A"].name,
        "head": sides["B"].name,
        "rule": vars(rule),
        "benchmarks": {name: _row(verdict) for name, verdict in found.verdicts.items()},
        "failures": found.failures,
        "new": list(found.new),
        "processes": found.processes,
        "seconds": round(found.seconds, 1),
        "machine": found.machine,
    }
    write_json(folder / SUMMARY, summary)
    return summary


def _row(verdict: Verdict) -> dict[str, Any]:
    """A verdict for JSON, which has no infinity: the ends of an unbounded interval are None."""
    ends = {
        name: tuple(value if 0 < value < math.inf else None for value in getattr(verdict, name))
        for name in ("ratio", "noise")
    }
    return {**vars(verdict), **ends}
