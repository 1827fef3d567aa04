"""Scoring against transformers: rows per second of a fine-tuned classifier, same rows, in one run.

Run as `python tests/bench/score_speed.py DATA_ROOT [ROUNDS [MODEL...]]`; DATA_ROOT has `glue/sst2/*.jsonl.gz` and
`hap/hate_speech_offensive/train.jsonl.gz`, MODEL is as for `kdnas suites`, by default the packaged teacher. Both sides score the
validation split of SST-2, and tweets, with the model fine-tuned on 3,200 rows: ours with the exported forms in a session, theirs
with PyTorch float32 in batches of 32. Prints the ratios with their spread over the rounds.
"""

import random
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from kdnas.evaluation.data import load_task
from kdnas.evaluation.finetune import Plan, Recipe, as_run, save_classifier, tune
from kdnas.evaluation.harness import architecture_of, resolve_model
from kdnas.evaluation.kinds import CLASSES
from kdnas.evaluation.rows import Split
from kdnas.evaluation.suites import chosen_specs
from kdnas.evaluation.tasks import Task
from kdnas.export.checkpoint import open_checkpoint
from kdnas.export.options import ExportOptions
from kdnas.export.run import run_export
from kdnas.export.session import Session
from kdnas.models.teacher import BUILTIN, resolve_teacher
from kdnas.store.host import default_threads, host_line
from kdnas.store.progress import stage
from kdnas.text.corpus import build_corpus
from kdnas.text.readers import TextOptions

ROWS, BATCH, SEQ_LEN = 640, 32, 128


def score_theirs(model: Any, tokenizer: Any, split: Split) -> float:
    """Seconds to score all rows in PyTorch float32, 32 per batch, in their order."""
    start = time.perf_counter()
    with torch.inference_mode():
        for first in range(0, len(split), BATCH):
            texts = split.texts[first : first + BATCH]
            batch = tokenizer(texts, truncation=True, max_length=SEQ_LEN, padding=True, return_tensors="pt")
            model(**batch).logits.argmax(-1)
    return time.perf_counter() - start


def many_at_once(path: Path, form: str) -> Session:
    """Open a session with the settings of `kdnas suites` and `kdnas filter`."""
    return Session(path, form, default_threads(), streams=default_threads())


def score_ours(runs: Any, split: Split) -> float:
    """Seconds to score all rows with a session."""
    start = time.perf_counter()
    CLASSES.predict(runs, split.texts)
    return time.perf_counter() - start


def compare(calls: dict[str, Callable[[], float]], rounds: int, against: str, rows: int) -> None:
    """Run all in random order each round, and print rows per second and the ratio; the first round is a warm-up."""
    took: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name in random.sample(list(calls), len(calls)):
            seconds = calls[name]()
            if number:
                took[name].append(seconds)
    for name, values in took.items():
        low, middle, high = np.percentile(np.array(took[against]) / np.array(values), [5, 50, 95])
        rate = rows / np.median(values)
        print(
            f"  {name:28} {rate:8,.0f} rows per second; {middle:.2f} [{low:.2f}, {high:.2f}] times {against}",
            flush=True,
        )


def measure(path: Path, task: Task, tweets: Split, rounds: int) -> None:
    """Fine-tune, score and print."""
    print(f"{architecture_of(path)}:")
    with tempfile.TemporaryDirectory() as scratch:
        home, folder = Path(scratch), Path(scratch, "model")
        plan, recipe = Plan(5 * ROWS, 1, 1, 100), Recipe([1e-4], 0, SEQ_LEN, 1024)
        with stage("fine-tuning", 5 * ROWS) as progress:
            model, _ = tune(path, task, plan, recipe, progress)
        save_classifier(model, path, folder, "")
        (home / "texts.txt").write_text("\n".join(task.train.texts[:4000]))
        corpus = build_corpus(home, str(home / "texts.txt"), TextOptions(seq_len=SEQ_LEN), resolve_teacher(str(folder)))
        export = run_export(home, folder, open_checkpoint(str(folder)).digest, corpus, ExportOptions())
        tokenizer = transformers.AutoTokenizer.from_pretrained(path)
        ways = ", ".join(
            f"{form} {row['recipe']}" for form, row in export.results["forms"].items() if row.get("recipe")
        )
        runs = {form: many_at_once(export.path, form) for form in export.results["forms"]}
        runs["PyTorch f32"] = as_run(model, CLASSES, folder, SEQ_LEN)
        for name, split in (("its validation split", task.test), ("the Davidson HAP set", tweets)):
            print(f"scoring {len(split)} rows of {name} ({ways}):")
            scorers = {"PyTorch f32, batch 32": partial(score_theirs, model, tokenizer, split)}
            scorers |= {f"kdnas, {name}": partial(score_ours, one, split) for name, one in runs.items()}
            compare(scorers, rounds, "PyTorch f32, batch 32", len(split))


if __name__ == "__main__":
    if len(sys.argv) < 2 or not Path(sys.argv[1]).is_dir():
        print("skipped: give the folder that contains glue/sst2/train.jsonl.gz and glue/sst2/validation.jsonl.gz")
        sys.exit()
    print(host_line(), flush=True)
    torch.set_num_threads(default_threads())
    specs = chosen_specs(("glue/sst2", "hap/davidson"))
    sst2, davidson = (load_task(spec, Path(sys.argv[1])).task for spec in specs)
    for model in sys.argv[3:] or [BUILTIN]:
        measure(resolve_model(model)[0], sst2, davidson.test.first(ROWS), int(sys.argv[2]) if len(sys.argv) > 2 else 5)
