"""From the start of a process to the first answer of a session, and its memory then, for one or more exports, interleaved.

Run as `python tests/bench/session_start.py ROUNDS FORM EXPORT...`. Each answer comes from a new process that opens the export and
embeds one short text. The files are in the page cache: the first round is not counted. Prints medians and ranges, and the seconds
of each step inside the process.
"""

import json
import subprocess
import sys
import time
from statistics import median

from kdnas.store.host import host_line

ANSWER = """
import json, sys, time
start = time.perf_counter()
from kdnas.export.session import Session
imported = time.perf_counter()
session = Session(sys.argv[1], sys.argv[2])
opened = time.perf_counter()
session.predict(["A short sentence."])
answered = time.perf_counter()
import psutil
memory = psutil.Process().memory_info().rss / 1e6
print(json.dumps({"import": imported - start, "open": opened - imported, "answer": answered - opened, "memory_mb": memory}))
"""


def measured(export: str, form: str) -> dict[str, float]:
    """Seconds of a new process until its answer is read and it has ended, those of its steps, and its resident memory."""
    start = time.perf_counter()
    found = subprocess.run(
        [sys.executable, "-c", ANSWER, export, form], capture_output=True, text=True, check=True
    ).stdout
    return {"process": time.perf_counter() - start, **json.loads(found)}


def main(rounds: int, form: str, exports: list[str]) -> None:
    print(host_line(), flush=True)
    rows: dict[str, list[dict[str, float]]] = {export: [] for export in exports}
    for number in range(rounds + 1):
        for export in exports if number % 2 else exports[::-1]:
            rows[export].append(measured(export, form))
    for export, found in rows.items():
        values = {name: [row[name] for row in found[1:]] for name in found[0]}
        parts = (f"{name} {median(one):.3f} [{min(one):.3f}, {max(one):.3f}]" for name, one in values.items())
        print(f"{export}, {form}: {', '.join(parts)}", flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 4:
        print("skipped: give the rounds, a form and the folders of exports")
        sys.exit()
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
