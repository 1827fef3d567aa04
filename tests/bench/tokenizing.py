"""The library that an export chooses for its tokenizer, against `tokenizers`: differences in the ids, speed and memory.

Run as `python tests/bench/tokenizing.py DATA_ROOT [TOKENIZER.json ...]`; DATA_ROOT has `text/*.jsonl.gz` with the column `text`.
Without files it takes the packaged teacher's WordPiece, and always 250,002 random Unigram pieces for the memory. Writes the form
that `kdnas export` would write, compares the ids of all texts, and times texts of 15 to 25 tokens, one at a time and each for the
first time. Memory is measured in separate processes.
"""

import gzip
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median

from export_memory import synthetic_tokenizer

from kdnas.export.encoder import TOKENIZER, Encoder, read_encoder
from kdnas.export.fast_tokenizer import write_fast_tokenizer
from kdnas.models.teacher import BUILTIN, resolve_teacher
from kdnas.store.host import host_line

CHUNK, ROUNDS, TIMED = 4096, 9, 2000
SHORTEST, LONGEST = 15, 25
GROWTH = """
import sys, time, psutil
from pathlib import Path
from kdnas.export.encoder import read_encoder
from kdnas.export.session import give_back_memory
process = psutil.Process()
before, start = process.memory_info().rss, time.perf_counter()
encoder = read_encoder(Path(sys.argv[1]), sys.argv[2])
encoder.ids(["a text"])
seconds = time.perf_counter() - start
give_back_memory()
print(f"{(process.memory_info().rss - before) / 1e6:.0f} MB, {seconds:.2f} s to load")
"""


def read_texts(folder: Path) -> list[str]:
    """All texts of all files, shuffled."""
    texts = []
    for file in sorted((folder / "text").glob("*.jsonl.gz")):
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            texts += [json.loads(line)["text"] for line in lines]
    random.Random(0).shuffle(texts)
    return texts


def compare(texts: list[str], folder: Path, name: str) -> None:
    """Compare both on all texts, then time them; the order within a round alternates."""
    fast, whole = read_encoder(folder, name), read_encoder(folder)
    differ, timed = 0, list[str]()
    for first in range(0, len(texts), CHUNK):
        chunk = texts[first : first + CHUNK]
        expected = whole.ids(chunk)
        differ += sum(one != other for one, other in zip(fast.ids(chunk), expected, strict=True))
        timed += [text for text, row in zip(chunk, expected, strict=True) if SHORTEST <= len(row) <= LONGEST]
    print(f"{name}: {differ} of {len(texts):,} texts differ", flush=True)
    took: dict[str, list[float]] = {name: [], TOKENIZER: []}
    fresh = {name: read_encoder(folder, name), TOKENIZER: read_encoder(folder)}  # they have seen no text
    for number, (start, end) in enumerate(pairwise(range(0, (ROUNDS + 1) * TIMED, TIMED))):
        part = timed[start:end]
        for one in (name, TOKENIZER) if number % 2 else (TOKENIZER, name):
            took[one].append(microseconds(fresh[one], part))
    ratios = sorted(other / one for one, other in zip(took[name], took[TOKENIZER], strict=True))
    rates = ", ".join(
        f"{one} {median(values):.1f} [{min(values):.1f}, {max(values):.1f}]" for one, values in took.items()
    )
    spread = f"{median(ratios):.1f} [{ratios[0]:.1f}, {ratios[-1]:.1f}] times"
    print(f"microseconds a text of {SHORTEST} to {LONGEST} tokens: {rates}; {spread}", flush=True)


def microseconds(encoder: Encoder, texts: list[str]) -> float:
    """Mean microseconds a text, one at a time."""
    start = time.perf_counter()
    for text in texts:
        encoder.ids([text])
    return 1e6 * (time.perf_counter() - start) / len(texts)


def memory(folder: Path, name: str) -> None:
    """Print memory and start of both."""
    for one in (name, TOKENIZER):
        command = [sys.executable, "-c", GROWTH, str(folder), one]
        print(
            f"{one}: {subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()}", flush=True
        )


def main(data_root: Path, files: list[Path]) -> None:
    """Print everything for each tokenizer."""
    print(host_line(), flush=True)
    texts = read_texts(data_root)
    with tempfile.TemporaryDirectory() as scratch:
        for number, file in enumerate(files):
            folder = Path(scratch) / str(number)
            folder.mkdir()
            shutil.copy(file, folder / TOKENIZER)
            fast = write_fast_tokenizer(folder, texts)
            print(f"{file.parent.name}: {fast or 'no other form'}", flush=True)
            if fast:
                compare(texts, folder, fast["file"])
                memory(folder, fast["file"])
        folder = Path(scratch) / "synthetic"
        folder.mkdir()
        tokenizer, words = synthetic_tokenizer(250_002)
        tokenizer.save(str(folder / TOKENIZER))
        if fast := write_fast_tokenizer(folder, words):
            print("250,002 random pieces:")
            memory(folder, fast["file"])


if __name__ == "__main__":
    if len(sys.argv) < 2 or not Path(sys.argv[1], "text").is_dir():
        print("skipped: give the folder that contains text/*.jsonl.gz")
        sys.exit()
    main(Path(sys.argv[1]), [*map(Path, sys.argv[2:])] or [resolve_teacher(BUILTIN).path / TOKENIZER])
