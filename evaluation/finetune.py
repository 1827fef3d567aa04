"""Fine-tune an encoder as a sequence classifier: length batches, bf16 where the CPU has it, best checkpoint on dev."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from transformers.utils import logging

from evaluation.metrics import classification_scores
from evaluation.tasks import Split, Task, encode
from kdnas.corpus import token_batches
from kdnas.environment import has_bf16
from kdnas.progress import Stage
from kdnas.teacher import load_tokenizer

BETAS, WEIGHT_DECAY, CLIP, WARMUP_SHARE = (0.9, 0.999), 0.01, 1.0, 0.06
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


def precision() -> str:
    """`bf16` where the CPU computes in it, else `f32`."""
    return "bf16" if has_bf16() else "f32"


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
    """One training run: model, optimiser and schedule."""

    def __init__(self, model: Any, learning_rate: float, steps: int) -> None:
        # Biases and layer norms (one-dimensional) are not decayed.
        matrices = [weight for weight in model.parameters() if weight.ndim > 1]
        vectors = [weight for weight in model.parameters() if weight.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]
        self.model = model
        self.optimizer = torch.optim.AdamW(groups, lr=learning_rate, betas=BETAS, fused=True)
        warmup = max(1, round(WARMUP_SHARE * steps))
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer,
            lambda step: min((step + 1) / warmup, max(0.0, (steps - step) / max(1, steps - warmup))),
        )
        self.accelerator = Accelerator(cpu=True, mixed_precision="bf16" if has_bf16() else "no")

    def step(self, batch: dict[str, torch.Tensor], labels: torch.Tensor) -> float:
        """One optimiser step on a padded batch and its labels (B,); the loss."""
        with self.accelerator.autocast():
            logits = self.model(**batch).logits
        loss = torch.nn.functional.cross_entropy(logits.float(), labels)
        self.accelerator.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())


def predict(model: Any, data: Encoded, batch_tokens: int) -> np.ndarray:
    """Class probabilities (N, C) in the order of `data`, computed in f32: what the saved model gives."""
    model.eval()
    output = np.zeros((len(data.ids), model.config.num_labels), dtype=np.float32)
    for places in token_batches(data.lengths, batch_tokens, 0, 0):
        with torch.inference_mode():
            logits = model(**data.batch(places, model.config.pad_token_id)).logits
        output[places] = torch.softmax(logits, -1).numpy()
    return output


def finetune(
    path: Path,
    task: Task,
    plan: Plan,
    learning_rates: list[float],
    seed: int,
    seq_len: int,
    batch_tokens: int,
    progress: Stage,
) -> tuple[Any, dict[str, Any]]:
    """Train a classifier with each learning rate, keep the checkpoint with the best dev macro-F1, score it on test.

    Args:
        path: folder of the encoder.
        task: the splits; test is used once, at the end.
        plan: examples, epochs and how many learning rates.
        learning_rates: candidates; the first `plan.learning_rates` are tried.
        seed: of the head, the dropout and the order of the batches.
        seq_len: tokens a text at most.
        batch_tokens: padded tokens a training batch.
        progress: gets one unit for each training example seen.

    Returns:
        The best model in f32, evaluation mode, and its record: what was tried, chosen, measured.
    """
    start = time.monotonic()
    train, dev, test = (
        Encoded.of(split, path, seq_len)
        for split in (task.train.first(plan.train_examples), task.dev.first(plan.dev_examples), task.test)
    )
    tried: list[dict[str, Any]] = []
    best: tuple[float, float, int, dict[str, torch.Tensor]] | None = None
    for rate in learning_rates[: plan.learning_rates]:
        scores = []
        for epoch, score, state in _run(path, task, train, dev, plan.epochs, rate, seed, batch_tokens, progress):
            scores.append(round(score, 4))
            if best is None or score > best[0]:
                best = (score, rate, epoch, {name: value.clone() for name, value in state.items()})
        tried.append({"learning_rate": rate, "dev_macro_f1": scores})
    assert best is not None  # a plan has at least one rate and one epoch
    model = load_classifier(path, task.labels, seed)
    model.load_state_dict(best[3])
    record = {
        **classification_scores(test.labels, predict(model, test, 4 * batch_tokens), task.positive),
        "learning_rate": best[1],
        "best_epoch": best[2],
        "dev_macro_f1": best[0],
        "tried": tried,
        "chosen_by": "macro-F1 on dev, over learning rates and epochs",
        "epochs": plan.epochs,
        "train_examples": len(train.ids),
        "dev_examples": len(dev.ids),
        "test_examples": len(test.ids),
        "seq_len": seq_len,
        "batch_tokens": batch_tokens,
        "weight_decay": WEIGHT_DECAY,
        "warmup_share": WARMUP_SHARE,
        "precision": precision(),
        "seed": seed,
        "seconds": round(time.monotonic() - start, 1),
    }
    return model.eval(), record


def _run(
    path: Path,
    task: Task,
    train: Encoded,
    dev: Encoded,
    epochs: int,
    rate: float,
    seed: int,
    batch_tokens: int,
    progress: Stage,
) -> Iterator[tuple[int, float, dict[str, torch.Tensor]]]:
    """One learning rate: after each epoch its number, the dev macro-F1 and the live weights."""
    batches = [token_batches(train.lengths, batch_tokens, seed, epoch) for epoch in range(epochs)]
    trainer = Trainer(load_classifier(path, task.labels, seed), rate, sum(map(len, batches)))
    pad_id, best, since = trainer.model.config.pad_token_id, -1.0, 0
    for epoch, order in enumerate(batches, 1):
        trainer.model.train()
        for places in order:
            loss = trainer.step(train.batch(places, pad_id), torch.from_numpy(train.labels[places]))
            if not math.isfinite(loss):
                return  # this rate diverged; what it reached before counts
            progress.advance(len(places), f"lr {rate:g}, loss {loss:.3f}")
        probabilities = predict(trainer.model, dev, 4 * batch_tokens)
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
    load_tokenizer(source).save_pretrained(folder)
    (folder / "README.md").write_text(card)
