"""From minutes to examples and epochs, by measured throughput; the plan is written into the results."""

import time
from pathlib import Path
from typing import Any

import torch

from kdnas.evaluation.finetune import Plan, Trainer
from kdnas.evaluation.kinds import Encoded, load_head
from kdnas.evaluation.tasks import Task
from kdnas.text.sentences import token_batches

MOST_EPOCHS, WANTED_EPOCHS, LEAST_EXAMPLES, MOST_DEV = 5, 3, 200, 1000
# A forward pass in f32 against a training step in bf16: about one third, rounded up.
FORWARD_COST = 0.4
# Part of the time that is planned; the rest is for loading, saving and a slower minute.
PLANNED_SHARE = 0.85
MEASURE_SECONDS = 2.0


def make_plan(task: Task, examples_per_second: list[float], seconds: float, rates: int, epochs: int | None) -> Plan:
    """Examples, epochs and learning rates that fit, the same for all models.

    More learning rates are tried only while each gets at least 3 epochs; epochs stop at 5; where one epoch does not
    fit, the train rows are cut, to no fewer than 200.

    Args:
        task: its sizes count.
        examples_per_second: training throughput of each model that is to be trained.
        seconds: for all of them together.
        rates: learning rates that could be tried.
        epochs: exactly so many, with all rows and all rates; then nothing is planned.
    """
    dev = min(len(task.dev), MOST_DEV)
    if epochs is not None:
        return Plan(len(task.train), epochs, rates, dev)
    cost = sum(1 / speed for speed in examples_per_second)  # seconds an example, all models
    left = seconds * PLANNED_SHARE - cost * FORWARD_COST * len(task.test)
    passes = left / (cost * (len(task.train) + FORWARD_COST * dev))
    tries = max(1, min(rates, int(passes / WANTED_EPOCHS)))
    if passes >= 1:
        return Plan(len(task.train), max(1, min(MOST_EPOCHS, int(passes / tries))), tries, dev)
    rows = int(left / cost - FORWARD_COST * dev)
    return Plan(min(len(task.train), max(LEAST_EXAMPLES, rows)), 1, 1, dev)


def throughput(path: Path, task: Task, seed: int, seq_len: int, batch_tokens: int) -> float:
    """Training examples a second of one model on one task, measured for about two seconds after two batches."""
    train = task.train.first(2000)
    data = Encoded.of(task.kind, train, path, seq_len)
    rows_each = len(train) / len(data.ids)  # a question may be several rows
    batches = token_batches(data.lengths, batch_tokens, seed, 0)
    # A random state of its own: measuring must not move the training that follows.
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
