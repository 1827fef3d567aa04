"""Does `kdnas latency-table --validate` survive kill -9 at random moments, with nothing lost and nothing measured twice?

Run as `python tests/bench/kill_latency_table.py [KILLS] [WITHIN_SECONDS]`: starts the command, kills its whole process group
after a random time, looks at every log, starts it again; the last run goes to the end. Prints what was found; exit code 1 where
a finished line was lost or something was measured twice.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from kdnas.artifact import ATTEMPTS, Artifact, read_jsonl
from kdnas.environment import host_line
from latency.table import read_rows

MINUTES_A_KILL = 0.02


def log_files(home: Path) -> list[Path]:
    """The logs of measurements."""
    return [file for file in home.rglob("*.jsonl") if file.name != ATTEMPTS]


def logs(home: Path) -> dict[str, bytes]:
    """All whole lines of every log, by its path as it will be once finished."""
    found = {}
    for file in log_files(home):
        content = file.read_bytes()
        found[str(file.relative_to(home)).replace(".partial", "")] = content[: content.rfind(b"\n") + 1]
    return found


def newest(home: Path) -> str:
    """The log that was written last."""
    return max(log_files(home), key=lambda file: file.stat().st_mtime_ns, default=Path("no window yet")).name


def repeats(home: Path) -> list[str]:
    """What stands twice in a log that has each thing once."""
    keys = {
        "samples.jsonl": lambda row: row["number"],
        "validation.jsonl": lambda row: (row["pass"], row["arch"], row["part"]),
    }
    found = []
    for name, key in keys.items():
        for file in home.rglob(name):
            counts = Counter(map(key, read_jsonl(file)))
            found += [f"{name}: {what} {count} times" for what, count in counts.items() if count > 1]
    return found


def run(command: list[str], seconds: float | None) -> int | None:
    """Exit code of the command, or None where it was killed after some seconds."""
    child = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        return child.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        return None


def write_corpus(file: Path) -> Path:
    """A few thousand short texts. The default corpus takes a minute to make: most kills would fall into that."""
    words = [f"w{number}" for number in range(500)]
    file.write_text("\n".join(" ".join(random.choices(words, k=random.randint(4, 40))) for _ in range(3000)))
    return file


def main(kills: int, within: float) -> int:
    """Kill, look, and go on; the exit code."""
    print(host_line())
    lost: list[str] = []
    killed, after = 0, Counter[str]()
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        options = ["--engine", "onnxruntime-f32", "--minutes", f"{1 + MINUTES_A_KILL * kills:g}", "--peak_seconds", "0"]
        options += ["--validate", "true", "--validation.sentences", "50", "--home", str(home)]
        options += ["--corpus", str(write_corpus(home / "texts.txt"))]
        command = [sys.executable, "-c", "from kdnas.cli import main; main()", "latency-table", *options]
        before: dict[str, bytes] = {}
        while killed < kills and run(command, random.uniform(0.2, within)) is None:
            killed += 1
            now = logs(home)
            lost += [name for name, content in before.items() if not now.get(name, b"").startswith(content)]
            after[newest(home)] += 1
            before = now
        code = run(command, None)
        now = logs(home)
        lost += [name for name, content in before.items() if not now.get(name, b"").startswith(content)]
        twice = repeats(home)
        tables = [Artifact.load(path.parent) for path in home.glob("latency-table/*/manifest.json")]
        whole = [len(read_rows(table.path / "table.csv")) == 2400 for table in tables]
    print(
        f"{killed} kills, each within {within:g} s, last written {dict(after)}; last run: exit {code}, table whole: {whole}"
    )
    print(f"lost: {lost or 'nothing'}; measured twice: {twice or 'nothing'}")
    return int(bool(code or lost or twice or whole != [True]))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 3, float(sys.argv[2]) if len(sys.argv) > 2 else 30.0))
