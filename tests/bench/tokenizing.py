"""SentencePiece against `tokenizers`: differences in the ids, speed and memory.

Run as `python tests/bench/tokenizing.py DATA_ROOT [PIECES]`; DATA_ROOT has `text/*.jsonl.gz` with the column `text`. Trains
an XLM-R-like tokenizer with PIECES pieces on a sample of it, converts it as transformers does, writes it as `kdnas export` does,
and tokenises all texts with both. Prints how many texts differ, the time per text, one at a time, and the memory of each with
250,002 random pieces, in a separate process.
"""

import gzip
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from export_memory import synthetic_tokenizer
from sentencepiece import SentencePieceTrainer
from transformers import XLMRobertaTokenizerFast

from kdnas.export.encoder import TOKENIZER, read_encoder
from kdnas.export.sentencepiece_form import write_sentencepiece
from kdnas.store.host import host_line

SAMPLE = 80_000
CHUNK = 4096
GROWTH = """
import sys, psutil
from pathlib import Path
from kdnas.export.encoder import read_encoder
from kdnas.export.session import give_back_memory
process = psutil.Process()
before = process.memory_info().rss
encoder = read_encoder(Path(sys.argv[1]), sys.argv[2] == "lean")
give_back_memory()
print(round((process.memory_info().rss - before) / 1e6))
"""


def read_texts(folder: Path) -> list[str]:
    """Read all texts of all files."""
    texts = []
    for file in sorted((folder / "text").glob("*.jsonl.gz")):
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            texts += [json.loads(line)["text"] for line in lines]
    return texts


def train(texts: list[str], pieces: int, folder: Path) -> None:
    """Train an XLM-R-like tokenizer, and write it as `tokenizer.json` and as a SentencePiece model."""
    sample = random.Random(0).sample(texts, min(SAMPLE, len(texts)))
    with (folder / "trained.model").open("wb") as model:
        SentencePieceTrainer.train(
            sentence_iterator=iter(sample), model_writer=model, vocab_size=pieces, character_coverage=0.9995,
            normalization_rule_name="nmt_nfkc", minloglevel=2,
        )  # fmt: skip
    XLMRobertaTokenizerFast(vocab_file=str(folder / "trained.model")).save_pretrained(folder)
    print("written at export:", write_sentencepiece(folder, sample) or "no", flush=True)


def compare(texts: list[str], folder: Path) -> None:
    """Compare both on all texts, and time them one text at a time."""
    lean, whole = read_encoder(folder, sentencepiece=True), read_encoder(folder)
    differ = 0
    for first in range(0, len(texts), CHUNK):
        chunk = texts[first : first + CHUNK]
        differ += sum(one != other for one, other in zip(lean.ids(chunk), whole.ids(chunk), strict=True))
    print(f"{differ} of {len(texts):,} texts differ", flush=True)
    few = random.Random(1).sample(texts, 5000)
    took: dict[str, list[float]] = {"SentencePiece": [], "tokenizers": []}
    for _ in range(5):
        for name, encoder in (("SentencePiece", lean), ("tokenizers", whole)):
            start = time.perf_counter()
            for text in few:
                encoder.ids([text])
            took[name].append(1e6 * (time.perf_counter() - start) / len(few))
    ratios = [other / one for one, other in zip(took["SentencePiece"], took["tokenizers"], strict=True)]
    rates = ", ".join(f"{name} {sorted(values)[2]:.1f}" for name, values in took.items())
    print(
        f"microseconds per text, one at a time: {rates}; {min(ratios):.2f} to {max(ratios):.2f} times as fast",
        flush=True,
    )


def memory(folder: Path) -> None:
    """Print the memory of both with 250,002 pieces."""
    tokenizer, words = synthetic_tokenizer(250_002)
    tokenizer.save(str(folder / TOKENIZER))
    write_sentencepiece(folder, words)
    for kind in ("lean", "whole"):
        child = subprocess.run(
            [sys.executable, "-c", GROWTH, str(folder), kind], capture_output=True, text=True, check=True
        )
        print(
            f"{'SentencePiece' if kind == 'lean' else 'tokenizers'} with 250,002 pieces: {child.stdout.strip()} MB",
            flush=True,
        )


if __name__ == "__main__":
    if len(sys.argv) < 2 or not Path(sys.argv[1], "text").is_dir():
        print("skipped: give the folder that contains text/*.jsonl.gz")
        sys.exit()
    print(host_line(), flush=True)
    everything = read_texts(Path(sys.argv[1]))
    with tempfile.TemporaryDirectory() as scratch:
        train(everything, int(sys.argv[2]) if len(sys.argv) > 2 else 16_000, Path(scratch))
        compare(everything, Path(scratch))
        memory(Path(scratch))
