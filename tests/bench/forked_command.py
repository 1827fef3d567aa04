"""Run the real command in a process forked from one with loaded libraries, which saves seconds per start; and make a corpus."""

import os
import random
import sys
from pathlib import Path

from kdnas.cli import main as kdnas


def start(options: list[str]) -> int:
    """Start `kdnas` with these options in a new process group, without output, and return its process id."""
    child = os.fork()
    if child:
        return child
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    code = 1
    try:
        sys.argv = ["kdnas", *options]
        kdnas()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(bool(end.code))
    finally:
        os._exit(code)


def write_corpus(file: Path) -> Path:
    """Write a few thousand short texts."""
    words = [f"w{number}" for number in range(500)]
    file.write_text("\n".join(" ".join(random.choices(words, k=random.randint(4, 40))) for _ in range(3000)))
    return file
