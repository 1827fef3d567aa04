"""Start-up time of commands, each in a new process. Prints one JSON object. `kdnas --help` should take less than 0.5 s.

Run as `python tests/bench/startup.py [ROUNDS]`.
"""

import json
import subprocess
import sys
import time
from statistics import median

from kdnas.store.host import host_line

COMMANDS = (["--help"], ["serve", "--help"], ["filter", "--help"], ["search", "--help"])


def seconds(arguments: list[str]) -> float:
    """Wall time of one process."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "kdnas.cli", *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    times: dict[str, list[float]] = {" ".join(command): [] for command in COMMANDS}
    for _ in range(rounds + 1):
        for command in COMMANDS:
            times[" ".join(command)].append(seconds(command))
    found = {
        f"kdnas {name}": {"median_s": round(median(values[1:]), 3), "max_s": round(max(values[1:]), 3)}
        for name, values in times.items()
    }
    print(json.dumps({"host": host_line(), "rounds": rounds, "commands": found}, indent=1))


if __name__ == "__main__":
    main()
