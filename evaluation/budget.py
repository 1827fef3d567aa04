"""Turn a time budget into examples and epochs, based on measured throughput. The plan is recorded in the results."""

import time
from pathlib import Path
from typing import Any

import torch

from kdnas.evaluation.encoded import Encoded, load_head
from kdnas.evaluation.finetune import Plan, Trainer
from kdnas.evaluation.tasks import Task
from kdnas.text.sentences import token_batches

MOST_EPOCHS, WANTED_EPOCHS, LEAST_EXAMPLES, MOST_DEV = 5, 3, 200, 1000
# Cost of a forward pass in f32 relative to a training step in bf16: about one third, rounded up.
FORWARD_COST = 0.4
# Fraction of the time that is planned; the rest is a reserve for loading, saving and varying speed.
PLANNED_SHARE = 0.85
MEASURE_SECONDS = 2.0


def make_plan(task: Task, examples_per_second: list[float], seconds: float, rates: int, epochs: int | None) -> Plan:
    """Examples, epochs and learning rates that fit into the time, the same for all models.

    More learning rates are tried only while each gets at least 3 epochs. There are at most 5 epochs. If one epoch does not fit,
    the number of train rows is reduced, to at least 200.

    Args:
        task: the task, for the sizes of its splits.
        examples_per_second: training throughput of each model to be trained.
        seconds: time for all models together, in seconds.
        rates: number of learning rates that could be tried.
        epochs: fixed number of epochs, with all rows and all rates; None plans the number.
    """
    dev = min(len(task.dev), MOST_DEV)
    if epochs is not None:
        return Plan(len(task.train), epochs, rates, dev)
    cost = sum(1 / speed for speed in examples_per_second)  # seconds per example, for all models
    left = seconds * PLANNED_SHARE - cost * FORWARD_COST * len(task.test)
    passes = left / (cost * (len(task.train) + FORWARD_COST * dev))
    tries = max(1, min(rates, int(passes / WANTED_EPOCHS)))
    if passes >= 1:
        return Plan(len(task.train), max(1, min(MOST_EPOCHS, int(passes / tries))), tries, dev)
    rows = int(left / cost - FORWARD_COST * dev)
    return Plan(min(len(task.train), max(LEAST_EXAMPLES, rows)), 1, 1, dev)


def throughput(path: Path, task: Task, seed: int, seq_len: int, batch_tokens: int) -> float:
    """Training examples per second of one model on one task, measured for about two seconds after two warm-up batches."""
    train = task.train.first(2000)
    data = Encoded.of(task.kind, train, path, seq_len)
    rows_each = len(train) / len(data.ids)  # a question may be several rows
    batches = token_batches(data.lengths, batch_tokens, seed, 0)
    # Use a separate random state, so that measuring does not change the training that follows.
    with torch.random.fork_rng(devices=[]):
        trainer = Trainer(load_head(path, task.kind, task.labels, seed), task.kind, 1e-5, 10_000)
        trainer.model.train()
        for indices in batches[:2]:
            _step(trainer, data, indices)
        start, seen, index = time.monotonic(), 0, 0
        while time.monotonic() - start < MEASURE_SECONDS:
            seen += _step(trainer, data, batches[index % len(batches)])
            index += 1
    return seen * rows_each / (time.monotonic() - start)


def _step(trainer: Trainer, data: Encoded, indices: Any) -> int:
    trainer.step(*data.batch(indices, trainer.model.config.pad_token_id))
    return len(indices)
