"""Fine-tune an encoder as a sequence classifier: length batches, bf16 where the CPU has it, best checkpoint on dev."""

import math
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.utils import logging

from evaluation.metrics import classification_scores
from evaluation.tasks import SPLITS, Split, Task, encode
from kdnas.distill.bf16 import FastBf16
from kdnas.distill.loop import CLIP_NORM, lr_share, make_accelerator, make_optimizer, resolve_precision
from kdnas.distill.student_folder import TOKENIZER_FILES
from kdnas.errors import KdnasError
from kdnas.progress import Stage
from kdnas.sentences import token_batches

WEIGHT_DECAY, WARMUP_SHARE = 0.01, 0.06
# Epochs without a better dev score after which a run stops.
PATIENCE = 2


@dataclass(frozen=True)
class Plan:
    """What one model is given; teacher and student get the same, but for the learning rates.

    Args:
        train_examples: the first so many train rows.
        epochs: passes over them, for each learning rate.
        learning_rates: how many of a model's learning rates are tried.
        dev_examples: the first so many dev rows.
    """

    train_examples: int
    epochs: int
    learning_rates: int
    dev_examples: int


@dataclass(frozen=True)
class Recipe:
    """How one model is trained.

    Args:
        learning_rates: peak rates that could be tried, the preferred one first.
        seed: of the head, the dropout and the order of the batches.
        seq_len: tokens a text at most.
        batch_tokens: padded tokens a training batch.
    """

    learning_rates: list[float]
    seed: int
    seq_len: int
    batch_tokens: int


@dataclass(frozen=True)
class Checkpoint:
    """Weights after an epoch, and how good they are on dev."""

    dev_macro_f1: float
    learning_rate: float
    best_epoch: int
    weights: dict[str, torch.Tensor]


@dataclass(frozen=True)
class Encoded:
    """Token ids and class numbers of one split."""

    ids: list[np.ndarray]
    labels: np.ndarray  # (N,) int64

    @classmethod
    def of(cls, split: Split, model: Path, seq_len: int) -> "Encoded":
        """Tokenise a split with a model's tokenizer."""
        return cls(encode(split.texts, model, seq_len), np.asarray(split.labels, dtype=np.int64))

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row, (N,)."""
        return np.asarray([len(row) for row in self.ids], dtype=np.int64)

    def batch(self, places: np.ndarray, pad_id: int) -> dict[str, torch.Tensor]:
        """Padded ids and mask (B, T) of some rows, T a multiple of 8 for few distinct shapes."""
        rows = [self.ids[int(place)] for place in places]
        width = -(-max(map(len, rows)) // 8) * 8
        ids = torch.full((len(rows), width), pad_id)
        mask = torch.zeros((len(rows), width), dtype=torch.int64)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = torch.from_numpy(row)
            mask[place, : len(row)] = 1
        return {"input_ids": ids, "attention_mask": mask}


def load_classifier(path: Path, labels: list[str], seed: int) -> Any:
    """The encoder of a folder with a new classification head (random by `seed`), class names in its configuration."""
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(seed)
    with quiet():  # that the head is new is the point, not a warning
        return AutoModelForSequenceClassification.from_pretrained(
            path,
            num_labels=len(labels),
            id2label=dict(enumerate(labels)),
            label2id={label: place for place, label in enumerate(labels)},
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' warnings."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


class Trainer:
    """One training run: model, optimiser and schedule, on the device and in the precision of distillation."""

    def __init__(self, model: Any, learning_rate: float, steps: int) -> None:
        self.accelerator = make_accelerator("auto")
        self.model = model.to(self.accelerator.device)
        self.optimizer = make_optimizer(self.model, learning_rate, WEIGHT_DECAY)
        self.learning_rate, self.steps, self.done = learning_rate, steps, 0

    def step(self, batch: dict[str, torch.Tensor], labels: torch.Tensor) -> float:
        """One update by a padded batch and its labels (B,); the cross-entropy before it."""
        device = self.accelerator.device
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * lr_share(self.done, self.steps, WARMUP_SHARE)
        with self.accelerator.autocast(), FastBf16():
            logits = self.model(**{name: value.to(device) for name, value in batch.items()}).logits
        loss = torch.nn.functional.cross_entropy(logits.float(), labels.to(device))
        self.accelerator.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.done += 1
        return float(loss.detach())


def predict(model: Any, data: Encoded, batch_tokens: int) -> np.ndarray:
    """Class probabilities (N, C) in the order of `data`, computed in f32: what the saved model gives."""
    model.eval()
    output = np.zeros((len(data.ids), model.config.num_labels), dtype=np.float32)
    for places in token_batches(data.lengths, batch_tokens, 0, 0):
        with torch.inference_mode():
            batch = data.batch(places, model.config.pad_token_id)
            logits = model(**{name: value.to(model.device) for name, value in batch.items()}).logits
        output[places] = torch.softmax(logits, -1).cpu().numpy()
    return output


def finetune(path: Path, task: Task, plan: Plan, recipe: Recipe, progress: Stage) -> tuple[Any, dict[str, Any]]:
    """Train a classifier with each learning rate, keep the checkpoint with the best dev macro-F1, score it on test.

    Args:
        path: folder of the encoder.
        task: the splits; test is used once, at the end.
        plan: examples, epochs and how many learning rates.
        recipe: learning rates, seed, lengths.
        progress: gets one unit for each training example seen.

    Returns:
        The best model on the CPU in f32, evaluation mode, and its record: what was tried, chosen, measured.

    Raises:
        KdnasError: the loss was not finite with any learning rate.
    """
    start = time.monotonic()
    train, dev, test = (
        Encoded.of(split, path, recipe.seq_len)
        for split in (task.train.first(plan.train_examples), task.dev.first(plan.dev_examples), task.test)
    )
    tried: list[dict[str, Any]] = []
    best: Checkpoint | None = None
    for rate in recipe.learning_rates[: plan.learning_rates]:
        scores = []
        for epoch, score, state in _run(path, task, (train, dev), plan.epochs, rate, recipe, progress):
            scores.append(round(score, 4))
            if best is None or score > best.dev_macro_f1:
                best = Checkpoint(score, rate, epoch, {name: value.cpu().clone() for name, value in state.items()})
        tried.append({"learning_rate": rate, "dev_macro_f1": scores})
    if best is None:
        raise KdnasError(f"{path}: the loss of task {task.name} is not finite with any of {recipe.learning_rates}")
    model = load_classifier(path, task.labels, recipe.seed)
    model.load_state_dict(best.weights)
    record = {
        **classification_scores(test.labels, predict(model, test, 4 * recipe.batch_tokens), task.positive),
        **{name: getattr(best, name) for name in ("learning_rate", "best_epoch", "dev_macro_f1")},
        "tried": tried,
        "chosen_by": "macro-F1 on dev, over learning rates and epochs",
        "epochs": plan.epochs,
        **{f"{name}_examples": len(part.ids) for name, part in zip(SPLITS, (train, dev, test), strict=True)},
        **{name: getattr(recipe, name) for name in ("seq_len", "batch_tokens", "seed")},
        "weight_decay": WEIGHT_DECAY,
        "warmup_share": WARMUP_SHARE,
        "precision": resolve_precision("auto"),
        "seconds": round(time.monotonic() - start, 1),
    }
    return model.eval(), record


def _run(
    path: Path,
    task: Task,
    data: tuple[Encoded, Encoded],
    epochs: int,
    rate: float,
    recipe: Recipe,
    progress: Stage,
) -> Iterator[tuple[int, float, dict[str, torch.Tensor]]]:
    """One learning rate on train and dev: after each epoch its number, the dev macro-F1 and the live weights."""
    train, dev = data
    batches = [token_batches(train.lengths, recipe.batch_tokens, recipe.seed, epoch) for epoch in range(epochs)]
    trainer = Trainer(load_classifier(path, task.labels, recipe.seed), rate, sum(map(len, batches)))
    pad_id, best, since = trainer.model.config.pad_token_id, -1.0, 0
    for epoch, order in enumerate(batches, 1):
        trainer.model.train()
        for places in order:
            loss = trainer.step(train.batch(places, pad_id), torch.from_numpy(train.labels[places]))
            if not math.isfinite(loss):
                return  # this rate diverged; what it reached before counts
            progress.advance(len(places), f"lr {rate:g}, loss {loss:.3f}")
        probabilities = predict(trainer.model, dev, 4 * recipe.batch_tokens)
        score = classification_scores(dev.labels, probabilities, task.positive)["macro_f1"]
        yield epoch, score, trainer.model.state_dict()
        best, since = (score, 0) if score > best else (best, since + 1)
        if since >= PATIENCE:
            progress.advance((epochs - epoch) * len(train.ids))
            return


def save_classifier(model: Any, source: Path, folder: Path, card: str) -> None:
    """Write a stock Hugging Face folder: configuration with class names, safetensors, tokenizer files, README card.

    Args:
        model: the classifier.
        source: folder of the encoder that it was made from; its tokenizer is taken.
        folder: is made.
        card: text of README.md.
    """
    model.save_pretrained(folder, safe_serialization=True)
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    (folder / "README.md").write_text(card)
    for file in folder.iterdir():
        with file.open("rb") as written:
            os.fsync(written.fileno())
