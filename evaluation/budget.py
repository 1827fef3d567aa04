"""Turn a time budget into examples and epochs, based on measured throughput. The plan is recorded in the results."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from kdnas.evaluation.encoded import Encoded, load_head
from kdnas.evaluation.finetune import Plan, Recipe, Trainer, as_run
from kdnas.evaluation.rows import Split
from kdnas.evaluation.suite_options import EmbeddingRows
from kdnas.evaluation.tasks import Task
from kdnas.evaluation.trained_rows import train_rows
from kdnas.store.json_files import write_json
from kdnas.store.progress import say
from kdnas.text.sentences import token_batches

MOST_EPOCHS, WANTED_EPOCHS, LEAST_EXAMPLES, MOST_DEV = 5, 3, 200, 1000
# Fraction of the time that is planned; the rest is a reserve for loading, saving and varying speed.
PLANNED_SHARE = 0.85
MEASURE_SECONDS = 2.0
SCORED_AT_ONCE = 128  # rows in one measured call; a call sorts its rows by length

Clock = Callable[[], float]


@dataclass(frozen=True)
class Speed:
    """Throughput of one model on one task, in examples per second.

    Args:
        train: training.
        score: prediction in PyTorch, in float32.
    """

    train: float
    score: float


@dataclass(frozen=True)
class Limit:
    """The time of one fine-tuning.

    Args:
        minutes: minutes of training and scoring; None is no limit.
        scored_rows: rows that are scored after training.
        name: start of messages, as in `suites: glue/sst2`.
    """

    minutes: float | None
    scored_rows: int
    name: str


def kept_plan(
    file: Path, model: Path, task: Task, wanted: Plan, recipe: Recipe, limit: Limit
) -> tuple[Plan, dict[str, float] | None]:
    """The plan of a fine-tuning and the measured throughput: as wanted, or reduced to fit the time.

    A resumed run keeps its first plan, because measurements vary.

    Args:
        file: file in which the plan is kept; the caller deletes it.
        model: folder of the encoder.
        task: the task.
        wanted: the plan without a limit.
        recipe: settings of the training.
        limit: time, and what it is for.
    """
    if not file.is_file():
        plan, speed = _fitting(model, task, wanted, recipe, limit)
        write_json(file, {"plan": asdict(plan), "speed": speed})
    kept = json.loads(file.read_text())
    return Plan(**kept["plan"]), kept["speed"]


def _fitting(
    model: Path, task: Task, wanted: Plan, recipe: Recipe, limit: Limit
) -> tuple[Plan, dict[str, float] | None]:
    if limit.minutes is None:
        return wanted, None
    around = (recipe.seed, recipe.seq_len, recipe.batch_tokens)
    speed = measured_speed(model, task, *around, embedding_rows=recipe.embedding_rows)
    seconds = 60 * limit.minutes
    if (scoring := scoring_seconds(task, [speed], limit.scored_rows)) > seconds / 2:
        say(
            f"{limit.name}: scoring {limit.scored_rows} rows takes about {scoring / 60:.1f} of the {limit.minutes:g} "
            "minutes; give a smaller --max-test to leave more for training"
        )
    cut = replace(task, train=task.train.first(wanted.train_examples), dev=task.dev.first(wanted.dev_examples))
    plan = make_plan(cut, [speed], seconds, wanted.learning_rates, None, wanted.epochs, limit.scored_rows)
    return plan, asdict(speed)


def make_plan(
    task: Task,
    speeds: Sequence[Speed],
    seconds: float,
    rates: int,
    epochs: int | None,
    most_epochs: int = MOST_EPOCHS,
    scored_rows: int | None = None,
) -> Plan:
    """Examples, epochs and learning rates that fit into the time, the same for all models.

    The time for scoring is set aside first; training and its passes over dev get the rest. More learning rates are tried only
    while each gets at least 3 epochs. If one epoch does not fit, the number of train rows is reduced, to at least 200.

    Args:
        task: the task, for the sizes of its splits.
        speeds: throughput of each model to be trained.
        seconds: time for all models together, in seconds.
        rates: number of learning rates that could be tried.
        epochs: fixed number of epochs, with all rows and all rates; None plans the number.
        most_epochs: maximum number of epochs that are planned.
        scored_rows: rows that each model scores after training; None is all of test, once.
    """
    dev = min(len(task.dev), MOST_DEV)
    if epochs is not None:
        return Plan(len(task.train), epochs, rates, dev)
    train_cost = sum(1 / speed.train for speed in speeds)  # seconds per example, for all models
    dev_seconds = dev * sum(1 / speed.score for speed in speeds)
    left = seconds * PLANNED_SHARE - scoring_seconds(task, speeds, scored_rows)
    passes = left / (train_cost * len(task.train) + dev_seconds)
    tries = max(1, min(rates, int(passes / min(WANTED_EPOCHS, most_epochs))))
    if passes >= 1:
        return Plan(len(task.train), max(1, min(most_epochs, int(passes / tries))), tries, dev)
    rows = int((left - dev_seconds) / train_cost)
    return Plan(min(len(task.train), max(LEAST_EXAMPLES, rows)), 1, 1, dev)


def scoring_seconds(task: Task, speeds: Sequence[Speed], scored_rows: int | None = None) -> float:
    """Seconds in which all models score their rows after training.

    Args:
        task: the task, for the size of its test split.
        speeds: throughput of each model.
        scored_rows: rows that each model scores; None is all of test, once.
    """
    rows = len(task.test) if scored_rows is None else scored_rows
    return rows * sum(1 / speed.score for speed in speeds)


def measured_speed(
    path: Path,
    task: Task,
    seed: int,
    seq_len: int,
    batch_tokens: int,
    clock: Clock = time.monotonic,
    embedding_rows: EmbeddingRows = "used",
) -> Speed:
    """Throughput of one model on one task, each measured for about two seconds after a warm-up."""
    # Use a separate random state, so that measuring does not change the training that follows.
    with torch.random.fork_rng(devices=[]):
        rows = task.train.first(2000)
        data = Encoded.of(task.kind, rows, path, seq_len)
        model = load_head(path, task.kind, task.labels, seed)
        train_rows(model, embedding_rows, data.ids)
        trainer = Trainer(model, task.kind, 1e-5, 10_000)
        rows_each = len(rows) / len(data.ids)  # a question may be several rows
        train = rows_each * _train_speed(trainer, data, seed, batch_tokens, clock)
        runs = as_run(trainer.model, task.kind, path, seq_len)
        return Speed(train, score_speed(lambda texts: task.kind.predict(runs, texts), task.test, clock))


def _train_speed(trainer: Trainer, data: Encoded, seed: int, batch_tokens: int, clock: Clock) -> float:
    """Encoded rows per second of training."""
    batches = token_batches(data.lengths, batch_tokens, seed, 0)
    trainer.model.train()
    for indices in batches[:2]:
        _step(trainer, data, indices)
    return per_second(lambda turn: _step(trainer, data, batches[turn % len(batches)]), clock)


def _step(trainer: Trainer, data: Encoded, indices: Any) -> int:
    trainer.step(*data.batch(indices, trainer.model.config.pad_token_id))
    return len(indices)


def score_speed(predict: Callable[[list[Any]], Any], test: Split, clock: Clock = time.monotonic) -> float:
    """Examples per second of prediction, on test rows from all parts of the split: it may be ordered by language.

    Args:
        predict: predicts a list of inputs.
        test: rows to be scored.
        clock: time in seconds.
    """
    parts = max(1, -(-len(test) // SCORED_AT_ONCE))
    predict(test.texts[::parts][:16])

    def score(turn: int) -> int:
        texts = test.texts[turn % parts :: parts]
        predict(texts)
        return len(texts)

    return per_second(score, clock)


def per_second(work: Callable[[int], int], clock: Clock = time.monotonic) -> float:
    """Rows per second of repeated work.

    Args:
        work: called with 0, 1, and so on until two seconds have passed; returns its number of rows.
        clock: time in seconds.
    """
    start, rows, turn = clock(), 0, 0
    while clock() - start < MEASURE_SECONDS:
        rows += work(turn)
        turn += 1
    return rows / (clock() - start)
