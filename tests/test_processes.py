"""Runs in several processes: all results, and no process that outlives a killed parent."""

import os
import signal
import subprocess
import sys

import psutil
import pytest

from kdnas.processes import AHEAD, finished
from kdnas.store.host import child_environment, physical_cores

PROGRAM = """
import os
import time

from kdnas.processes import finished

def work(seconds):
    time.sleep(seconds)
    return os.getpid()

if __name__ == "__main__":
    for _, found in finished(work, {number: (1 if number < 2 else 600,) for number in range(8)}):
        print(found, flush=True)
"""


@pytest.mark.slow
def test_every_call_gives_its_result() -> None:
    calls = {number: (number, 2) for number in range(2 * AHEAD * physical_cores() + 3)}
    assert dict(finished(pow, calls)) == {number: number**2 for number in calls}
    assert dict(finished(pow, {})) == {}


@pytest.mark.slow
def test_processes_end_when_their_parent_is_killed(tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("program") / "program.py"
    file.write_text(PROGRAM)
    parent = subprocess.Popen([sys.executable, file], env=child_environment(), stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    workers = [psutil.Process(number) for number in {int(parent.stdout.readline()) for _ in range(2)}]
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    gone, alive = psutil.wait_procs(workers, timeout=60)
    for one in alive:
        one.kill()
    assert (len(gone), alive) == (len(workers), [])
