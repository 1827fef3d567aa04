"""A comparison: processes of both sides in turn, until everything is decided, the looks are used or the time is."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

from kdnas.gates.decision import Outcome, Rule, Verdict, judge, side_of
from kdnas.gates.process import SideError, Timed
from kdnas.gates.sides import Side
from kdnas.store.artifact import append_jsonl, read_jsonl, write_json
from kdnas.store.progress import say, stage

RESULTS, SUMMARY = "results.jsonl", "summary.json"
Process = Callable[[Side, tuple[str, ...] | None], Timed]


@dataclass(frozen=True)
class Found:
    """What a comparison says.

    Args:
        verdicts: of benchmarks that both sides have.
        failures: why others have none: present on one side only, a result of zero, a crash.
        new: benchmarks that the head alone has; nothing to compare with, and no failure.
        processes: that ran.
        seconds: that they took.
        machine: they ran on.
    """

    verdicts: dict[str, Verdict]
    failures: dict[str, str] = field(default_factory=dict)
    new: tuple[str, ...] = ()
    processes: int = 0
    seconds: float = 0.0
    machine: dict[str, Any] = field(default_factory=dict)

    @property
    def outcome(self) -> Outcome:
        """Of the whole: the gravest."""
        if self.failures:
            return Outcome.FAILED
        order = (Outcome.REGRESSION, Outcome.UNFIT, Outcome.INCONCLUSIVE)
        found = {verdict.outcome for verdict in self.verdicts.values()}
        return next((one for one in order if one in found), Outcome.OK)

    @property
    def exit_code(self) -> int:
        """3 where a benchmark is slower, 1 where one could not be judged, 0 else: a doubt or an unfit host blocks nobody."""
        if any(verdict.outcome is Outcome.REGRESSION for verdict in self.verdicts.values()):
            return 3
        return 1 if self.failures else 0


def compare(folder: Path, sides: dict[str, Side], process: Process, rule: Rule, minutes: float) -> Found:
    """Run processes in the order of `side_of`, looking after so many pairs; what an interrupted one ran is kept.

    What a look decides stays decided, and is not timed again.

    Args:
        folder: of this comparison.
        sides: `A`, the base, and `B`, the head.
        process: runs one, of these benchmarks or (None) all.
        rule: thresholds and looks.
        minutes: after which no further process starts.
    """
    rows = read_jsonl(folder / RESULTS)
    start = time.monotonic()
    total = 2 * rule.looks[-1]
    if rows:
        say(f"gate: goes on after {len(rows)} processes of an earlier run in {folder}; delete it to measure all anew")
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
    """Benchmarks that the looks before this one left in doubt; None before the first, when all run."""
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
    failures = dict.fromkeys(names["A"] - names["B"], "the base alone has it")
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
    """A benchmark's seconds in the processes that ran it: the first ones, until it was decided."""
    return [row["seconds"][name] for row in takewhile(lambda row: name in row["seconds"], rows)]


def _common(rows: list[dict[str, Any]], side: str) -> set[str]:
    """Benchmarks that every process of a side has."""
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
        "benchmarks": {name: vars(verdict) for name, verdict in found.verdicts.items()},
        "failures": found.failures,
        "new": list(found.new),
        "processes": found.processes,
        "seconds": round(found.seconds, 1),
        "machine": found.machine,
    }
    write_json(folder / SUMMARY, summary)
    return summary
