"""Speed of `kdnas filter apply`: megabytes of uncompressed input per second, the whole command included.

Run as `python tests/bench/filter_apply.py MODEL CORPUS [COPIES [ROUNDS]]`; MODEL is an exported classifier, CORPUS a file of JSON
lines. COPIES (by default 4) of it are annotated once. Then each round applies two thresholds. One copy is also split by a new run
with each threshold, and its kept documents must be the same.
"""

import gzip
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kdnas.store.host import host_line

THRESHOLDS = ("0.5", "0.9")
KDNAS = Path(sys.executable).parent / "kdnas"


def run(*command: object) -> float:
    """Run a command of kdnas; returns its seconds."""
    start = time.perf_counter()
    subprocess.run([KDNAS, *map(str, command)], check=True, capture_output=True)
    return time.perf_counter() - start


def kept(folder: Path) -> list[bytes]:
    return [file.read_bytes() for file in sorted((folder / "kept").rglob("part-*"))]


def main(model: str, corpus: str, copies: str = "4", rounds: str = "3") -> None:
    print(f"{host_line()}")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        data = Path(corpus).read_bytes()
        data = gzip.decompress(data) if corpus.endswith(".gz") else data
        for folder, count in (("one", 1), ("all", int(copies))):
            (root / folder).mkdir()
            for number in range(count):
                (root / folder / f"{number:03d}.jsonl").write_bytes(data)
            seconds = run(
                "filter", "--model", model, "--input", root / folder, "--output", root / f"{folder}-scores",
                "--mode", "annotate",
            )  # fmt: skip
        megabytes = int(copies) * len(data) / 1e6
        print(f"annotate: {megabytes:.0f} MB in {seconds:.1f} s, {megabytes / seconds:.1f} MB/s")
        for number in range(int(rounds)):
            for threshold in THRESHOLDS:
                out = root / f"split-{number}-{threshold}"
                seconds = run(
                    "filter", "apply", "--run", root / "all-scores", "--output", out, "--threshold", threshold
                )
                print(
                    f"round {number}, threshold {threshold}: {seconds:.2f} s, {megabytes / seconds:.1f} MB/s",
                    flush=True,
                )
        for threshold in THRESHOLDS:
            applied, fresh = root / f"applied-{threshold}", root / f"fresh-{threshold}"
            run("filter", "apply", "--run", root / "one-scores", "--output", applied, "--threshold", threshold)
            run("filter", "--model", model, "--input", root / "one", "--output", fresh, "--threshold", threshold)
            print(f"threshold {threshold}: kept documents equal to a new run's: {kept(applied) == kept(fresh)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
