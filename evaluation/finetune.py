"""Fine-tune an encoder on a task: batches by length, bf16 if the CPU has it, best checkpoint on dev, exact resume.

The dev score is that of the report: of a task that teaches several languages, the unweighted mean over them.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kdnas.distill.fast_training import FastTraining
from kdnas.distill.loop import lr_factor, make_accelerator, make_optimizer, resolve_precision
from kdnas.distill.updates import update
from kdnas.errors import KdnasError, Terminated
from kdnas.evaluation.averages import averaging_of, headline, scored
from kdnas.evaluation.encoded import Encoded, load_head
from kdnas.evaluation.kinds import TaskKind
from kdnas.evaluation.metric_modules import scores_of
from kdnas.evaluation.rows import Split
from kdnas.evaluation.suite_options import EmbeddingRows
from kdnas.evaluation.tasks import SPLITS, Task
from kdnas.evaluation.trained_rows import train_rows, whole_table
from kdnas.evaluation.tuning_state import Attempt, TuningState
from kdnas.export.folder import read_tokenizer
from kdnas.export.judge import Candidate
from kdnas.export.parity import torch_forward
from kdnas.models.folder import copy_tokenizer
from kdnas.store.progress import Stage
from kdnas.text.sentences import token_batches

WEIGHT_DECAY, WARMUP_SHARE = 0.01, 0.06
# Number of epochs without a better dev score after which a run stops.
PATIENCE = 2


@dataclass(frozen=True)
class Plan:
    """Amount of training of one model; teacher and student get the same plan, but may have other learning rates.

    Args:
        train_examples: number of train rows; the first ones are used.
        epochs: passes over the train rows for each learning rate.
        learning_rates: number of the model's learning rates that are tried.
        dev_examples: number of dev rows; the first ones are used.
    """

    train_examples: int
    epochs: int
    learning_rates: int
    dev_examples: int


@dataclass(frozen=True)
class Recipe:
    """Settings for the training of one model.

    Args:
        learning_rates: candidate peak learning rates, the preferred one first.
        seed: seed of the head, the dropout and the order of the batches.
        seq_len: maximum number of tokens in a text.
        batch_tokens: maximum number of padded tokens in a training batch.
        embedding_rows: rows of the embedding table that are trained.
    """

    learning_rates: list[float]
    seed: int
    seq_len: int
    batch_tokens: int
    embedding_rows: EmbeddingRows = "used"


class Trainer:
    """One training run: model, optimiser and schedule, with the same device and precision as distillation."""

    def __init__(self, model: Any, kind: TaskKind, learning_rate: float, steps: int) -> None:
        self.kind = kind
        self.accelerator = make_accelerator("auto")
        self.model = model.to(self.accelerator.device)
        self.optimizer = make_optimizer(self.model, learning_rate, WEIGHT_DECAY)
        self.learning_rate, self.steps, self.done = learning_rate, steps, 0

    def step(self, batch: dict[str, torch.Tensor], targets: torch.Tensor) -> float:
        """Update the model with a batch of `kdnas.evaluation.encoded.Encoded`; returns the loss before."""
        device = self.accelerator.device
        with self.accelerator.autocast(), FastTraining():
            output = self.model(**{name: value.to(device) for name, value in batch.items()})
        loss = self.kind.loss(output, targets.to(device))
        self.accelerator.backward(loss)
        update(self.optimizer, self.learning_rate * lr_factor(self.done, self.steps, WARMUP_SHARE))
        self.done += 1
        return float(loss.detach())


def as_run(model: Any, kind: TaskKind, path: Path, seq_len: int) -> Candidate:
    """A PyTorch model in f32 with the interface of a session, the tokenizer of folder `path`, and texts cut at `seq_len`."""
    model.eval()
    task = kind.export_task
    tokenizer = read_tokenizer(path / "tokenizer.json", seq_len)
    return Candidate(torch_forward(model, task), task, tokenizer, model.config.pad_token_id, seq_len)


def finetune(
    path: Path, task: Task, plan: Plan, recipe: Recipe, progress: Stage, folder: Path | None = None
) -> tuple[Any, dict[str, Any]]:
    """Train (`tune`), and score the best model once on test; the scores are added to the record."""
    model, record = tune(path, task, plan, recipe, progress, folder)
    runs = as_run(model, task.kind, path, recipe.seq_len)
    predicted = task.kind.predict(runs, task.test.texts)
    return model, scores_of(task, task.test, predicted) | record


def tune(
    path: Path, task: Task, plan: Plan, recipe: Recipe, progress: Stage, folder: Path | None = None
) -> tuple[Any, dict[str, Any]]:
    """Train with each learning rate and keep the checkpoint with the best dev score (`task.metric`, the mean over languages).

    Args:
        path: folder of the encoder.
        task: task with its splits; test is not used.
        plan: examples, epochs and number of learning rates.
        recipe: learning rates, seed and lengths.
        progress: advanced by one for each training example.
        folder: folder of checkpoints, from which a stopped run resumes exactly; the caller deletes it. None saves nothing.

    Returns:
        The best model on the CPU in f32 and evaluation mode, and its record: the tried and the chosen settings.

    Raises:
        KdnasError: the loss was not finite with any learning rate.
    """
    train, dev = task.train.first(plan.train_examples), task.dev.first(plan.dev_examples)
    encoded = Encoded.of(task.kind, train, path, recipe.seq_len)
    state = TuningState(folder, {"task": task.name, "plan": asdict(plan), "recipe": asdict(recipe)})
    tried: list[dict[str, Any]] = []
    for number, rate in enumerate(recipe.learning_rates[: plan.learning_rates]):
        if _is_finished(state, number, plan.epochs):
            progress.advance(plan.epochs * len(train))
        else:
            _run(path, task, (encoded, dev), plan.epochs, number, recipe, progress, state)
        tried.append({"learning_rate": rate, "dev_scores": [round(score, 4) for score in state.scores(number)]})
    best = state.best
    if best is None:
        raise KdnasError(f"{path}: the loss of task {task.name} is not finite with any of {recipe.learning_rates}")
    model = _first_model(path, task, recipe, encoded)
    model.load_state_dict(best.weights)
    whole_table(model)
    record = {
        **{name: getattr(best, name) for name in ("learning_rate", "best_epoch", "dev_score")},
        "tried": tried,
        "chosen_by": f"{task.metric} on dev ({averaging_of(dev)}), over learning rates and epochs",
        "epochs": plan.epochs,
        **{f"{name}_examples": len(part) for name, part in zip(SPLITS, (train, dev, task.test), strict=True)},
        **{name: getattr(recipe, name) for name in ("seq_len", "batch_tokens", "seed", "embedding_rows")},
        "weight_decay": WEIGHT_DECAY,
        "warmup_fraction": WARMUP_SHARE,
        "precision": resolve_precision("auto"),
        "seconds": round(state.seconds, 1),
    }
    return model.eval(), record


def _first_model(path: Path, task: Task, recipe: Recipe, train: Encoded) -> Any:
    """The encoder with a new head, before any update; its table has the rows that are trained."""
    model = load_head(path, task.kind, task.labels, recipe.seed)
    train_rows(model, recipe.embedding_rows, train.ids)
    return model


def _is_finished(state: TuningState, number: int, epochs: int) -> bool:
    """Whether a learning rate's training has ended: all epochs done, no better score for a while, or diverged."""
    scores = state.scores(number)
    return len(scores) >= epochs or _is_out_of_patience(scores) or state.diverged(number)


def _is_out_of_patience(scores: Sequence[float]) -> bool:
    return len(scores) - 1 - scores.index(max(scores)) >= PATIENCE if scores else False


def _run(
    path: Path,
    task: Task,
    data: tuple[Encoded, Split],
    epochs: int,
    number: int,
    recipe: Recipe,
    progress: Stage,
    state: TuningState,
) -> None:
    """Train with the learning rate of index `number`, from its checkpoint if it has one; `state` records each dev score."""
    train, dev = data
    batches = [token_batches(train.lengths, recipe.batch_tokens, recipe.seed, epoch) for epoch in range(epochs)]
    rate = recipe.learning_rates[number]
    trainer = Trainer(_first_model(path, task, recipe, train), task.kind, rate, sum(map(len, batches)))
    attempt = state.attempt(number, trainer.model, trainer.optimizer)
    trainer.done = attempt.position.step
    for epoch, order in enumerate(batches):
        done = _done_batches(attempt, epoch, len(order))
        progress.advance(sum(map(len, order[:done])))
        if not _train_epoch(trainer, train, order, (epoch, done), attempt, progress):
            state.add_divergence(number)  # earlier epochs of this rate still count
            break
        if len(state.scores(number)) <= epoch:
            runs = as_run(trainer.model, task.kind, path, recipe.seq_len)
            score = headline(scored(task, dev, task.kind.predict(runs, dev.texts)), task.metric)
            state.add_score(number, rate, score, trainer.model.state_dict())
        if _is_out_of_patience(state.scores(number)[: epoch + 1]):
            progress.advance((epochs - epoch - 1) * len(train.ids))
            break
    attempt.finish()


def _done_batches(attempt: Attempt, epoch: int, batches: int) -> int:
    """Number of batches of an epoch that came before the attempt's checkpoint."""
    at = attempt.position
    return batches if epoch < at.epoch else at.index if epoch == at.epoch else 0


def _train_epoch(
    trainer: Trainer,
    train: Encoded,
    order: Sequence[np.ndarray],
    start: tuple[int, int],
    attempt: Attempt,
    progress: Stage,
) -> bool:
    """Train on the batches of one epoch from `start` (epoch, batch) on; returns False if the loss is not finite."""
    epoch, first = start
    pad_id = trainer.model.config.pad_token_id
    trainer.model.train()
    try:
        for index in range(first, len(order)):
            attempt.begin_update()
            loss = trainer.step(*train.batch(order[index], pad_id))
            if not math.isfinite(loss):
                return False
            attempt.end_update(epoch, index + 1)
            progress.advance(len(order[index]), f"lr {trainer.learning_rate:g}, loss {loss:.3f}")
    except (KeyboardInterrupt, Terminated):
        attempt.save()
        raise
    return True


def save_classifier(model: Any, source: Path, folder: Path, card: str) -> None:
    """Write a stock Hugging Face folder: configuration with class names, safetensors, tokenizer files, README card.

    Args:
        model: the classifier.
        source: folder of the original encoder, whose tokenizer is copied.
        folder: folder to create.
        card: text of README.md.
    """
    model.save_pretrained(folder, safe_serialization=True)
    copy_tokenizer(source, folder)
    (folder / "README.md").write_text(card)
    for file in folder.iterdir():
        with file.open("rb") as written:
            os.fsync(written.fileno())
