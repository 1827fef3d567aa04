"""Fine-tuning against transformers: seconds per update of a model with a large embedding table, interleaved in one run.

Run as `python tests/bench/finetune_speed.py [UPDATES [ROUNDS [BATCH [MODEL...]]]]`; MODEL is as for `kdnas suites`, by default
a random BERT of 12 layers, 384 columns and 250,037 rows, the shape of multilingual-e5-small. Every batch has BATCH (32) rows of
32 tokens, so that neither side gains by its order of the rows or its padding. `transformers.Trainer` has its defaults on a CPU
(float32, the whole table), and once more in bf16 if the CPU has it. Ours is as `kdnas suites` trains: bf16 if the CPU has it,
with the used rows of the table, with a frozen table, and with the whole table. Each takes UPDATES updates (6) in random order
in each of ROUNDS rounds (2) after a warm-up. Prints seconds per update, and how many times as fast ours is, with its spread
over the rounds: by the clock, and in CPU seconds of the process, which say more on a busy host with OMP_NUM_THREADS=1.
"""

import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from kdnas.distill.loop import use_all_cores
from kdnas.evaluation.encoded import Encoded, load_head
from kdnas.evaluation.finetune import Trainer
from kdnas.evaluation.harness import architecture_of, resolve_model
from kdnas.evaluation.kinds import CLASSES
from kdnas.evaluation.suite_options import EmbeddingRows
from kdnas.evaluation.trained_rows import train_rows
from kdnas.models.teacher import BUILTIN, resolve_teacher
from kdnas.store.host import has_bf16, host_line
from kdnas.text.sample import spread_sentences

VOCABULARY, SEQ_LEN = 250_037, 32
LABELS = ["negative", "positive"]
THEIRS = "transformers.Trainer, float32"


@dataclass
class Took:
    """Seconds of a run, by the clock and of the CPU."""

    wall: float
    cpu: float


def timed(work: Callable[[], Any]) -> Took:
    """Run once."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Took(time.perf_counter() - wall, time.process_time() - cpu)


class Rows(torch.utils.data.Dataset[dict[str, Any]]):
    """Rows of equal length in the format of `transformers.Trainer`."""

    def __init__(self, ids: list[np.ndarray]) -> None:
        self.ids = ids

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        ids = torch.from_numpy(self.ids[index])
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": index % 2}


def random_model(folder: Path) -> Path:
    """A random BERT with a large vocabulary and the packaged tokenizer, which uses the first 30,522 rows."""
    torch.manual_seed(0)
    shape = {"num_hidden_layers": 12, "num_attention_heads": 12, "hidden_size": 384, "intermediate_size": 1536}
    config = transformers.BertConfig(vocab_size=VOCABULARY, **shape)
    transformers.BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    for file in resolve_teacher(BUILTIN).path.iterdir():
        if file.name.startswith(("tokenizer", "special_tokens", "vocab")):
            (folder / file.name).write_bytes(file.read_bytes())
    return folder


def equal_rows(path: Path, count: int) -> list[np.ndarray]:
    """Token ids of `count` texts of exactly `SEQ_LEN` tokens: sentences of docstrings, joined and cut."""
    from kdnas.export.folder import read_tokenizer

    tokenizer = read_tokenizer(path / "tokenizer.json", SEQ_LEN)
    sentences = (row.text for row in spread_sentences())
    found: list[np.ndarray] = []
    while len(found) < count:
        ids = tokenizer.encode(" ".join(islice(sentences, 4))).ids
        if len(ids) == SEQ_LEN:
            found.append(np.asarray(ids, dtype=np.int64))
    return found


def train_ours(path: Path, ids: list[np.ndarray], batch: int, rows: EmbeddingRows) -> Took:
    """One pass over the rows; loading the model does not count."""
    data = Encoded(CLASSES, ids, [np.zeros_like(row) for row in ids], [np.asarray(n % 2) for n in range(len(ids))])
    model = load_head(path, CLASSES, LABELS, 0)

    def work() -> None:
        train_rows(model, rows, ids)
        batches = np.random.default_rng(0).permutation(len(ids)).reshape(-1, batch)
        trainer = Trainer(model, CLASSES, 5e-5, len(batches))
        trainer.model.train()
        for indices in batches:
            trainer.step(*data.batch(indices, model.config.pad_token_id))

    return timed(work)


def train_theirs(path: Path, ids: list[np.ndarray], batch: int, bf16: bool) -> Took:
    """One pass over the rows with `transformers.Trainer`; loading the model does not count."""
    with tempfile.TemporaryDirectory() as folder:
        settings = transformers.TrainingArguments(
            folder, num_train_epochs=1, per_device_train_batch_size=batch, seed=0, report_to=[], save_strategy="no",
            disable_tqdm=True, use_cpu=True, logging_strategy="no", bf16=bf16,
        )  # fmt: skip
        trainer = transformers.Trainer(load_head(path, CLASSES, LABELS, 0), settings, train_dataset=Rows(ids))
        trainer.remove_callback(transformers.PrinterCallback)
        return timed(trainer.train)


def compare(calls: dict[str, Callable[[], Took]], rounds: int, updates: int) -> None:
    """Run all in random order in each round and print the results; the first round is a warm-up."""
    took: dict[str, list[Took]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name in random.sample(list(calls), len(calls)):
            one = calls[name]()
            if number:
                took[name].append(one)
    for name, runs in took.items():
        for kind in ("wall", "cpu"):
            ours, theirs = (np.array([getattr(run, kind) for run in one]) for one in (runs, took[THEIRS]))
            low, middle, high = np.percentile(theirs / ours, [5, 50, 95])
            seconds = np.median(ours) / updates
            print(f"  {name:30} {kind:4} {seconds:.3f} s an update; {middle:.2f} [{low:.2f}, {high:.2f}] times as fast")


def measure(path: Path, updates: int, rounds: int, batch: int) -> None:
    """Compare both sides on one model."""
    rows = equal_rows(path, updates * batch)
    vocabulary = len(load_head(path, CLASSES, LABELS, 0).get_input_embeddings().weight)
    print(f"{architecture_of(path)}, {vocabulary:,} rows, {batch} rows of {SEQ_LEN} tokens in a batch:", flush=True)
    calls: dict[str, Callable[[], Took]] = {THEIRS: partial(train_theirs, path, rows, batch, False)}
    if has_bf16():
        calls["transformers.Trainer, bf16"] = partial(train_theirs, path, rows, batch, True)
    ways: tuple[EmbeddingRows, ...] = ("used", "frozen", "all")
    calls |= {f"kdnas, {way} rows": partial(train_ours, path, rows, batch, way) for way in ways}
    compare(calls, rounds, updates)


if __name__ == "__main__":
    print(host_line(), flush=True)
    use_all_cores()
    given = [int(value) for value in sys.argv[1:4]]
    updates, rounds, batch = [*given, *(6, 2, 32)[len(given) :]]
    with tempfile.TemporaryDirectory() as scratch:
        for path in [resolve_model(model)[0] for model in sys.argv[4:]] or [random_model(Path(scratch))]:
            measure(path, updates, rounds, batch)
