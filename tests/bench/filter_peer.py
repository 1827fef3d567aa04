"""`kdnas filter` against the HAP transform of data-prep-kit (DPK), and against the model alone on the same tokens.

Run as `python tests/bench/filter_peer.py MODEL EXPORT CORPUS DPK [DOCUMENTS [ROUNDS [FORM,...]]]`; MODEL is the Hugging Face
folder of a classifier with two labels, EXPORT its export, CORPUS a file of JSON lines with `text`, of which the first DOCUMENTS
(by default 60: DPK needs minutes for more) count. DPK is `-`, to leave it out, or a folder that `pip install --no-deps --target
DPK data-prep-toolkit==1.1.8 data-prep-toolkit-transforms==1.1.8 mmh3 python-json-logger` makes.

Both sides have the same weights, threads and sentences: DPK's splitter, which needs a download, is replaced by that of kdnas. Of
DPK, its transform alone is timed, without its start and without reading and writing files; of kdnas, the whole run from a Parquet
file to its output, with the opening of the model. Rounds alternate all sides. DPK cuts a sentence at 512 tokens; kdnas scores
windows.
"""

import gzip
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from kdnas.export.session import Session
from kdnas.filtering.options import FilterOptions
from kdnas.filtering.run import filter_documents
from kdnas.filtering.spans import sentence_spans
from kdnas.store.host import SOURCE, default_threads, host_line

NONE = "-"
COLUMN = "contents"
OPTIONS = FilterOptions(mode="annotate", column=COLUMN)
FORMS = "onnxruntime-f32,openvino-f32,onnxruntime-int8,openvino-int8"


def sentences_of(text: str) -> list[str]:
    return [text[start:end] for start, end in sentence_spans(text)]


def dpk_worker(table: str, model: str) -> None:
    """Apply DPK's transform at each line of the standard input; prints the seconds, then the scores."""
    nltk: Any = ModuleType("nltk")
    nltk.download, nltk.sent_tokenize, nltk.__spec__ = (lambda name: True), sentences_of, ModuleSpec("nltk", None)
    sys.modules["nltk"] = nltk
    from dpk_hap.transform import HAPTransform, logger  # type: ignore[import-not-found]

    logger.setLevel(logging.ERROR)
    transform = HAPTransform({"model_name_or_path": model})
    rows = pq.read_table(table)
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        (found,), _ = transform.transform(rows)
        seconds = time.perf_counter() - start
        print(json.dumps({"seconds": seconds, "scores": found.column("hap_score").to_pylist()}), flush=True)


class Dpk:
    """DPK in a process of its own."""

    def __init__(self, folder: Path, table: Path, model: Path) -> None:
        path = os.pathsep.join([str(folder), str(SOURCE)])
        environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": str(default_threads())}
        command = [sys.executable, __file__, "--worker", str(table), str(model)]
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._answer("ready")

    def _answer(self, start: str) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(start):
                return line
        raise SystemExit("the process of DPK ended")

    def run(self) -> tuple[float, np.ndarray]:
        """Seconds and scores of the documents."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        found = json.loads(self._answer("{"))
        return found["seconds"], np.array(found["scores"])

    def end(self) -> None:
        self._process.communicate()


def filtered(export: Path, table: Path, form: str) -> tuple[float, np.ndarray]:
    """Seconds and scores of the documents by `kdnas filter`."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        filter_documents(export, (str(table),), folder, form, options=OPTIONS)
        seconds = time.perf_counter() - start
        scores = []
        for file in sorted(Path(folder).glob("scores/*/part-*")):
            with zstandard.open(file, "rt", encoding="utf-8") as lines:
                scores += [next(iter(json.loads(line)["scores"].values())) for line in lines]
        return seconds, np.array(scores)


def alone(export: Path, texts: list[str], form: str) -> tuple[float, int]:
    """Seconds of the model alone on the ids of all distinct sentences, and their tokens."""
    threads = default_threads()
    session = Session(export, form, threads, streams=threads)  # as `kdnas filter` opens it
    rows = session.encode(list(dict.fromkeys(one for text in texts for one in sentences_of(text))))
    session.predict_ids(rows[:64], OPTIONS.batch_tokens)
    start = time.perf_counter()
    session.predict_ids(rows, OPTIONS.batch_tokens)
    return time.perf_counter() - start, sum(map(len, rows))


def spread(values: list[float]) -> str:
    low, middle, high = np.percentile(values, [0, 50, 100])
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def main(
    model: str, export: str, corpus: str, dpk: str, documents: str = "60", rounds: str = "3", names: str = FORMS
) -> None:
    print(host_line())
    with gzip.open(corpus, "rt", encoding="utf-8") if corpus.endswith(".gz") else open(corpus) as file:
        rows = [json.loads(line)["text"] for _, line in zip(range(int(documents)), file, strict=False)]
    texts = [" ".join(text.split()) for text in rows]  # as DPK does it
    seconds: dict[str, list[float]] = defaultdict(list)
    scores: dict[str, np.ndarray] = {}
    tokens, forms = 0, names.split(",")
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "table.parquet"
        pq.write_table(pa.table({COLUMN: texts}), table)
        peer = None if dpk == NONE else Dpk(Path(dpk), table, Path(model))
        for number in range(int(rounds)):
            if peer is not None:
                taken, scores["dpk"] = peer.run()
                seconds["dpk"].append(taken)
            for form in forms:
                taken, scores[form] = filtered(Path(export), table, form)
                seconds[form].append(taken)
                taken, tokens = alone(Path(export), texts, form)
                seconds[f"{form} alone"].append(taken)
            print(
                f"round {number}: {json.dumps({name: round(taken[-1], 2) for name, taken in seconds.items()})}",
                flush=True,
            )
        if peer is not None:
            peer.end()
    print(f"{len(texts)} documents, {tokens} tokens in distinct sentences, {default_threads()} threads")
    print("| form | seconds | times DPK | the model alone, of the time | largest difference of a score from DPK |")
    print("|---|---:|---:|---:|---:|")
    for form in forms:
        faster = spread(ratios(seconds["dpk"], seconds[form])) if peer else ""
        difference = f"{np.abs(scores[form] - scores['dpk']).max():.4f}" if peer else ""
        share = spread(ratios(seconds[f"{form} alone"], seconds[form]))
        print(f"| {form} | {spread(seconds[form])} | {faster} | {share} | {difference} |")
    if peer:
        print(f"DPK: {spread(seconds['dpk'])} s")


def ratios(above: list[float], below: list[float]) -> list[float]:
    return [one / other for one, other in zip(above, below, strict=True)]


if __name__ == "__main__":
    if sys.argv[1] == "--worker":
        dpk_worker(*sys.argv[2:])
    else:
        main(*sys.argv[1:])
