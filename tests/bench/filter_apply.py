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

UNIT_MB = 16  # several units for each core, as a large corpus has
THRESHOLDS = ("0.5", "0.999")
KDNAS = Path(sys.executable).parent / "kdnas"


def run(*command: object) -> float:
    """Run a command of kdnas; returns its seconds."""
    start = time.perf_counter()
    subprocess.run([KDNAS, *map(str, command)], check=True, capture_output=True)
    return time.perf_counter() - start


def score(model: str, source: Path, output: Path, *options: str) -> float:
    """Run `kdnas filter`; returns its seconds."""
    return run("filter", "--model", model, "--input", source, "--output", output, "--unit-mb", UNIT_MB, *options)


def apply(scores: Path, output: Path, threshold: str) -> float:
    """Run `kdnas filter apply`; returns its seconds."""
    return run("filter", "apply", "--run", scores, "--output", output, "--threshold", threshold)


def kept(folder: Path) -> list[bytes]:
    return [file.read_bytes() for file in sorted((folder / "kept").rglob("part-*"))]


def main(model: str, corpus: str, copies: str = "4", rounds: str = "3") -> None:
    print(host_line(), flush=True)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        data = Path(corpus).read_bytes()
        data = gzip.decompress(data) if corpus.endswith(".gz") else data
        for folder, count in (("one", 1), ("all", int(copies))):
            (root / folder).mkdir()
            for number in range(count):
                (root / folder / f"{number:03d}.jsonl").write_bytes(data)
            seconds = score(model, root / folder, root / f"{folder}-scores", "--mode", "annotate")
        megabytes = int(copies) * len(data) / 1e6
        print(f"annotate: {megabytes:.0f} MB in {seconds:.1f} s, {megabytes / seconds:.1f} MB/s")
        for number in range(int(rounds)):
            for threshold in THRESHOLDS:
                seconds = apply(root / "all-scores", root / f"split-{number}-{threshold}", threshold)
                print(
                    f"round {number}, threshold {threshold}: {seconds:.2f} s, {megabytes / seconds:.1f} MB/s",
                    flush=True,
                )
        for threshold in THRESHOLDS:
            applied, fresh = root / f"applied-{threshold}", root / f"fresh-{threshold}"
            apply(root / "one-scores", applied, threshold)
            score(model, root / "one", fresh, "--threshold", threshold)
            print(f"threshold {threshold}: kept documents equal to a new run's: {kept(applied) == kept(fresh)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
