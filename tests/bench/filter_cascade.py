"""`kdnas filter` with and without its cascade: tokens per second, and the fraction of the positive sentences that it misses.

Run as `python tests/bench/filter_cascade.py MODEL CORPUS [ROUNDS [SAMPLE]]`; MODEL is an exported classifier, CORPUS a file of
JSON lines with `text`. The gate is built once. Then rounds with and without it alternate, without the time to build it. All
tokens of the corpus count, also those of sentences that pass. All runs annotate, so the scores of the first round without the
gate show what it misses; sentences of the sample are left out of this.

`python tests/bench/filter_cascade.py mix DATA_ROOT CORPUS [PERCENT [SENTENCES]]` writes such a corpus: documents of 20 English
sentences from `text/english.jsonl.gz`, of which PERCENT (by default 2) are replaced by tweets of `hap/hate_speech_offensive` that
people called hateful or offensive, from the second half of the set.
"""

import gzip
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from kdnas.export.session import Session
from kdnas.filtering import run as filter_run
from kdnas.filtering.commits import RunFolder
from kdnas.filtering.gate import GATE, gate_scores, read_gate
from kdnas.filtering.gate_options import GateOptions
from kdnas.filtering.inputs import find_inputs
from kdnas.filtering.open_store import open_store
from kdnas.filtering.options import FilterOptions
from kdnas.filtering.plan import cut_units
from kdnas.filtering.run import filter_documents
from kdnas.filtering.sample import draw_sample
from kdnas.filtering.spans import sentence_spans
from kdnas.store.artifact import Artifact
from kdnas.store.host import host_line

SENTENCES = 20  # of a document
OPTIONS = FilterOptions(unit_mb=8.0, mode="annotate")


def read_rows(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def mix(root: Path, corpus: Path, percent: float = 2, sentences: float = 1e9) -> None:
    """Write a corpus of clean sentences and tweets."""
    clean = [row["text"] for row in read_rows(root / "text/english.jsonl.gz")][: int(sentences)]
    tweets = read_rows(root / "hap/hate_speech_offensive/train.jsonl.gz")
    bad = [" ".join(row["tweet"].split()) for row in tweets[len(tweets) // 2 :] if row["class"] != 2]
    numbers = random.Random(0)
    count = min(len(bad), int(len(clean) * percent / 100))
    for index, text in zip(numbers.sample(range(len(clean)), count), numbers.sample(bad, count), strict=True):
        clean[index] = text
    with corpus.open("w") as file:
        for first in range(0, len(clean), SENTENCES):
            file.write(json.dumps({"id": first, "text": "\n".join(clean[first : first + SENTENCES])}) + "\n")
    print(f"{corpus}: {len(clean)} texts, {count} of them from the tweets")


def count_tokens(model: Path, texts: list[str]) -> int:
    """Tokens of all sentences, special tokens included."""
    encoder = Session(model).encoder
    around = len(encoder.prefix) + len(encoder.suffix)
    total = 0
    for text in texts:
        total += sum(len(ids) + around for ids in encoder.ids([text[a:b] for a, b in sentence_spans(text)]))
    return total


def timed(model: Path, corpus: Path, output: Path, gate: GateOptions, ready: Path | None = None) -> tuple[float, float]:
    """Seconds of a run without those in which the gate was built, and these.

    Args:
        model: an exported classifier.
        corpus: the corpus.
        output: folder of the run.
        gate: settings of the gate.
        ready: folder of a run with the same settings, whose gate is taken.
    """
    build, spent = filter_run.open_gate, [0.0]

    def open_gate(folder: RunFolder, *arguments: Any) -> Any:
        start = time.perf_counter()
        if ready is not None:
            folder.store.create(GATE, (ready / GATE).read_bytes())
        found = build(folder, *arguments)
        spent[0] = time.perf_counter() - start
        return found

    filter_run.open_gate = open_gate
    start = time.perf_counter()
    try:
        filter_documents(model, (str(corpus),), str(output), options=OPTIONS, gate=gate)
    finally:
        filter_run.open_gate = build
    return time.perf_counter() - start - spent[0], spent[0]


def side_cars(output: Path) -> Iterator[dict[str, Any]]:
    for file in sorted(output.glob("scores/*/part-*")):
        with zstandard.open(file, "rt", encoding="utf-8") as lines:
            yield from map(json.loads, lines)


def spread(values: list[float]) -> str:
    low, middle, high = np.percentile(values, [0, 50, 100])
    return f"{middle:,.4g} [{low:,.4g}, {high:,.4g}]"


def check(corpus: Path, gated: Path, scored: Path, sample: int, texts: list[str]) -> None:
    """Print what the gate of a run lets pass, by the scores of a run without it."""
    gate = read_gate(open_store(str(gated)))
    assert gate is not None, "the gate was not used"
    units = cut_units(find_inputs([str(corpus)]), OPTIONS.unit_bytes)
    drawn = set(draw_sample(units, OPTIONS, sample, gate.seed).texts)
    sentences, scores = [], []
    for text, row in zip(texts, side_cars(scored), strict=True):
        sentences += [text[start:end] for start, end, _ in row["sentences"]]
        scores += [score for _, _, score in row["sentences"]]
    positive = np.array(scores) >= 0.5
    start = time.perf_counter()
    passed = gate_scores(gate.weights, sentences) < gate.threshold
    seconds = time.perf_counter() - start
    new = np.array([text not in drawn for text in sentences])
    print(f"gate alone: {sum(map(len, sentences)) / seconds / 1e6:.1f} million characters a second on one core")
    for name, mask in (("all", new | True), ("outside of the sample", new)):
        share = positive[mask].mean()
        missed, count = int((passed & positive & mask).sum()), int((positive & mask).sum())
        print(
            f"{name}: {int(mask.sum())} sentences, {100 * share:.2f} % positive; {100 * passed[mask].mean():.1f} % pass; "
            f"missed {missed} of {count} positive ones: {100 * missed / max(count, 1):.2f} %"
        )


def measure(model: Path, corpus: Path, rounds: int, sample: int) -> None:
    """Alternate both ways, and print the ratios with their range over the rounds."""
    texts = [json.loads(line)["text"] for line in corpus.open()]
    tokens = count_tokens(model, texts)
    print(f"{corpus.stat().st_size / 1e6:.1f} MB, {tokens} tokens", flush=True)
    gate = GateOptions(True, sample=sample)
    rates: dict[str, list[float]] = {"without": [], "with": []}
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        seconds, building = timed(model, corpus, scratch / "first", gate)
        print(f"the gate was built in {building:.1f} s, the rest of the run took {seconds:.1f} s", flush=True)
        for number in range(rounds):
            plain, _ = timed(model, corpus, scratch / f"plain-{number}", GateOptions())
            gated, _ = timed(model, corpus, scratch / f"gated-{number}", gate, scratch / "first")
            for name, value in zip(rates, (plain, gated), strict=True):
                rates[name].append(tokens / value)
            print(f"round {number}: {plain:.1f} s without, {gated:.1f} s with the gate", flush=True)
        for name, values in rates.items():
            ratios = [a / b for a, b in zip(values, rates["without"], strict=True)]
            print(f"{name:8} {spread(values)} tokens a second; {spread(ratios)} times without")
        for name in ("plain-0", "gated-0"):
            results = Artifact.load(scratch / name, "filter").results
            print(f"{name}: {results['dropped']} of {results['documents']} documents dropped; gate: {results['gate']}")
        check(corpus, scratch / "gated-0", scratch / "plain-0", sample, texts)


if __name__ == "__main__":
    if len(sys.argv) < 3 or not Path(sys.argv[2]).exists():
        print("skipped: give an exported classifier and a corpus; or mix, the root of the data and the corpus to write")
        sys.exit()
    if sys.argv[1] == "mix":
        mix(Path(sys.argv[2]), Path(sys.argv[3]), *map(float, sys.argv[4:]))
        sys.exit()
    print(host_line(), flush=True)
    measure(
        Path(sys.argv[1]),
        Path(sys.argv[2]),
        int(sys.argv[3]) if len(sys.argv) > 3 else 3,
        int(sys.argv[4]) if len(sys.argv) > 4 else 50_000,
    )
