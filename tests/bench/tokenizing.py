"""The libraries that an export can choose for its tokenizer, against `tokenizers`: differences in the ids, speed and memory.

Run as `python tests/bench/tokenizing.py DATA_ROOT [TOKENIZER.json ...]`; DATA_ROOT has `text/*.jsonl.gz` with the column `text`.
Without files it takes the packaged teacher's WordPiece, and always 250,002 random Unigram pieces for the memory. Writes the forms
that the libraries can read, compares the ids of all texts, and times texts of 15 to 25 tokens, one at a time and each for the
first time. Memory and loading are measured in separate processes.
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
from kdnas.export.fast_tokenizer import WRITERS, write_fast_tokenizer
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


def compare(texts: list[str], folder: Path, names: list[str]) -> None:
    """Compare all forms on all texts, then time them; the order within a round alternates."""
    encoders = {name: read_encoder(folder, name) for name in names}
    differ, timed = dict.fromkeys(names, 0), list[str]()
    for first in range(0, len(texts), CHUNK):
        chunk = texts[first : first + CHUNK]
        expected = encoders[TOKENIZER].ids(chunk)
        for name, encoder in encoders.items():
            differ[name] += sum(one != other for one, other in zip(encoder.ids(chunk), expected, strict=True))
        timed += [text for text, row in zip(chunk, expected, strict=True) if SHORTEST <= len(row) <= LONGEST]
    print(f"of {len(texts):,} texts differ: {differ}", flush=True)
    took: dict[str, list[float]] = {name: [] for name in names}
    fresh = {name: read_encoder(folder, name) for name in names}  # they have seen no text
    for number, (start, end) in enumerate(pairwise(range(0, (ROUNDS + 1) * TIMED, TIMED))):
        part = timed[start:end]
        for one in names if number % 2 else names[::-1]:
            took[one].append(microseconds(fresh[one], part))
    print(f"microseconds a text of {SHORTEST} to {LONGEST} tokens; times as fast as {TOKENIZER}, by round:")
    for name, values in took.items():
        ratios = sorted(whole / one for one, whole in zip(values, took[TOKENIZER], strict=True))
        print(f"{name}: {spread(values)}; {spread(ratios)} times", flush=True)


def spread(values: list[float]) -> str:
    """Median and range."""
    return f"{median(values):.1f} [{min(values):.1f}, {max(values):.1f}]"


def microseconds(encoder: Encoder, texts: list[str]) -> float:
    """Mean microseconds a text, one at a time."""
    start = time.perf_counter()
    for text in texts:
        encoder.ids([text])
    return 1e6 * (time.perf_counter() - start) / len(texts)


def memory(folder: Path, names: list[str]) -> None:
    """Print memory and loading time of all forms."""
    for one in names:
        command = [sys.executable, "-c", GROWTH, str(folder), one]
        print(
            f"{one}: {subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()}", flush=True
        )


def forms(folder: Path) -> list[str]:
    """Names of the forms of `tokenizer.json` that could be written, and its own."""
    return [*(name for name, (write, _) in WRITERS.items() if write(folder)), TOKENIZER]


def main(data_root: Path, files: list[Path]) -> None:
    """Print everything for each tokenizer."""
    print(host_line(), flush=True)
    texts = read_texts(data_root)
    with tempfile.TemporaryDirectory() as scratch:
        for number, file in enumerate(files):
            folder = Path(scratch) / str(number)
            folder.mkdir()
            shutil.copy(file, folder / TOKENIZER)
            chosen = write_fast_tokenizer(folder, texts)
            print(f"{file.parent.name}: an export chooses {chosen['file'] if chosen else TOKENIZER}", flush=True)
            names = forms(folder)
            compare(texts, folder, names)
            memory(folder, names)
        folder = Path(scratch) / "synthetic"
        folder.mkdir()
        tokenizer, words = synthetic_tokenizer(250_002)
        tokenizer.save(str(folder / TOKENIZER))
        if chosen := write_fast_tokenizer(folder, words):
            print("250,002 random pieces:")
            memory(folder, [chosen["file"], TOKENIZER])


if __name__ == "__main__":
    if len(sys.argv) < 2 or not Path(sys.argv[1], "text").is_dir():
        print("skipped: give the folder that contains text/*.jsonl.gz")
        sys.exit()
    main(Path(sys.argv[1]), [*map(Path, sys.argv[2:])] or [resolve_teacher(BUILTIN).path / TOKENIZER])
