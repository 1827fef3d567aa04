"""Does `kdnas filter --cluster` survive kill -9 of its driver, its workers and their node? Is every row there once?

Run as `python tests/bench/filter_kills.py MODEL CORPUS [KILLS] [WITHIN_SECONDS]` with a classifier that `kdnas export` wrote and
a JSONL file of texts. 200 files of five kinds (JSONL, plain, gz, zst, Parquet) are filtered once by one process without kills.
Then the real command filters them on a Ray cluster of two nodes on this host, of which one has the workers. Again and again a
driver, a worker or that node is killed with SIGKILL, KILLS times each, at a random time within WITHIN_SECONDS after the first new
unit, or one time in four after the driver's start. A killed driver is started again, a killed node replaced. Each run that
completes is compared, file by file, with the first one, and another run starts until all kills are done. Prints the counts; the
exit code is 1 if a run differs.
"""

import gzip
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from ray.cluster_utils import Cluster

from kdnas.store.host import host_line

FILES, DOCUMENTS, SENTENCES = 200, 30, 3
KINDS = ("driver", "worker", "node")
OPTIONS = ("--unit_mb", "0.004", "--threads", "1", "--max_quarantine", "1", "--verify", "false")
FATES = ("kept", "dropped", "quarantine")


def write_inputs(folder: Path, corpus: Path) -> None:
    """Files of five kinds; every tenth JSONL file has a line that cannot be read."""
    folder.mkdir()
    reading = gzip.open if corpus.suffix == ".gz" else open
    with reading(corpus, "rt", encoding="utf-8") as lines:
        texts = [json.loads(next(lines))["text"] for _ in range(FILES * DOCUMENTS)]
    for number in range(FILES):
        first = number * DOCUMENTS
        rows = [
            {"id": f"{number}-{row}", "text": " ".join(texts[first + row : first + row + SENTENCES])}
            for row in range(DOCUMENTS)
        ]
        data = "".join(json.dumps(row) + "\n" for row in rows).encode()
        name, kind = folder / f"{number:03}", number % 5
        if kind == 0:
            name.with_suffix(".jsonl").write_bytes(data + (b'{"text": "torn\n' if number % 50 == 0 else b""))
        elif kind == 1:
            name.with_suffix(".txt").write_text("".join(row["text"].replace("\n", " ") + "\n" for row in rows))
        elif kind == 2:
            name.with_suffix(".jsonl.gz").write_bytes(gzip.compress(data))
        elif kind == 3:
            name.with_suffix(".jsonl.zst").write_bytes(zstandard.compress(data))
        else:
            pq.write_table(pa.Table.from_pylist(rows), name.with_suffix(".parquet"), row_group_size=10)


def contents(folder: Path) -> dict[str, bytes]:
    """Name and content of every file of rows."""
    files = [file for fate in FATES for file in (folder / fate).rglob("part-*")]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def units(folder: Path) -> int:
    """Number of finished units."""
    return sum(1 for _ in folder.glob("commits/*/*.json"))


def start(model: Path, inputs: Path, output: Path, *more: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "kdnas.cli", "filter", "--model", str(model), "--input", str(inputs)]
    with output.with_suffix(".log").open("ab") as log:
        return subprocess.Popen([*command, "--output", str(output), *OPTIONS, *more], stdout=log, stderr=log)


def wait(driver: subprocess.Popen[bytes], seconds: float) -> bool:
    """Whether the driver has ended within these seconds."""
    try:
        driver.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def wait_for_unit(driver: subprocess.Popen[bytes], output: Path) -> bool:
    """Whether the driver has finished a unit; False if it ended before."""
    before = units(output)
    while units(output) == before:
        if wait(driver, 0.05):
            return False
    return True


def workers() -> list[psutil.Process]:
    """Workers of the filter on this host."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.name().startswith("ray::_Worker"):
                found.append(process)
        except psutil.Error:  # ended meanwhile
            continue
    return found


def kill(kind: str, driver: subprocess.Popen[bytes], cluster: Cluster) -> bool:
    """Kill one of a kind; False if there is no worker."""
    if kind == "driver":
        driver.kill()
        driver.wait()
    elif kind == "worker":
        found = workers()
        if not found:
            return False
        os.kill(random.choice(found).pid, signal.SIGKILL)
    else:
        cluster.remove_node(cluster.extra, allow_graceful=False)
        cluster.extra = cluster.add_node(num_cpus=2)
    return True


def main(model: Path, corpus: Path, kills: int = 50, within: float = 3.0) -> int:
    """Kill, look, and go on; the exit code."""
    print(host_line())
    counts, wrong, runs = Counter[str](), [], 0
    with tempfile.TemporaryDirectory() as scratch:
        inputs, whole, output = (Path(scratch) / name for name in ("in", "whole", "killed"))
        write_inputs(inputs, corpus)
        if start(model, inputs, whole).wait():
            print((whole.with_suffix(".log")).read_text())
            return 1
        expected = contents(whole)
        print(f"{FILES} files, {units(whole)} units, {len(expected)} files of rows", flush=True)
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        cluster.extra = cluster.add_node(num_cpus=2)
        driver = None
        while sum(counts.values()) < len(KINDS) * kills or driver is not None:
            driver = driver or start(model, inputs, output, "--cluster", cluster.address)
            left = [kind for kind in KINDS if counts[kind] < kills]
            early = random.random() < 1 / 4
            ended = wait(driver, 3600) if not left else not early and not wait_for_unit(driver, output)
            if ended or wait(driver, random.uniform(0, within)):
                runs += 1
                if driver.returncode or contents(output) != expected:
                    wrong.append(f"run {runs}: exit {driver.returncode}, {units(output)} units")
                    shutil.move(output, Path(f"wrong-{runs}"))
                driver = None
                shutil.rmtree(output, ignore_errors=True)
                print(f"run {runs} ended: {dict(counts)}, wrong: {wrong or 'nothing'}", flush=True)
            else:
                kind = random.choice(left)
                counts[kind] += kill(kind, driver, cluster)
                driver = None if kind == "driver" else driver
        cluster.shutdown()
    print(f"{dict(counts)} kills, each within {within:g} s; {runs} complete runs; wrong: {wrong or 'nothing'}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:4]), *map(float, sys.argv[4:5])))
