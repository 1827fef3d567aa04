"""The state of a fine-tuning on disk, so that a stopped run resumes exactly: dev scores, best weights, checkpoints."""

import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from kdnas.distill.checkpoint import Position, load_checkpoint, remove_checkpoints
from kdnas.distill.saver import Saver
from kdnas.store.digest import file_sha256
from kdnas.store.json_files import append_jsonl, fsync_folder, read_jsonl, to_json, write_json
from kdnas.store.progress import say

EVALUATIONS, SETTINGS = "evaluations.jsonl", "settings.json"
CHECKPOINT_SECONDS = 60.0


@dataclass(frozen=True)
class Best:
    """The best weights so far, on the CPU, with their dev score."""

    dev_score: float
    learning_rate: float
    best_epoch: int
    weights: dict[str, torch.Tensor]


class TuningState:
    """Dev scores and best weights of a fine-tuning over its learning rates, and the seconds that all attempts took.

    Each dev score is one durable line of `evaluations.jsonl`. The best weights are written before their line, under a name
    of their own, so that a kill between the two keeps the weights of the last line.

    Args:
        folder: folder of the state; it continues what it contains. None keeps the state in memory alone.
        settings: all that decides the result; a folder with other settings is emptied.
    """

    def __init__(self, folder: Path | None, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        self.best: Best | None = None
        self._rows: list[dict[str, Any]] = []
        self._start = time.monotonic()
        self._before = 0.0
        if folder is not None:
            self._open(folder, to_json(settings))

    def _open(self, folder: Path, settings: Any) -> None:
        file = folder / SETTINGS
        same = file.is_file() and _read(file) == settings
        if same:
            self._rows = read_jsonl(folder / EVALUATIONS)
            same = self._load_best(folder)
        if not same:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            self._rows, self.best = [], None
            write_json(file, settings)
        self._before = max([0.0, *(row["seconds"] for row in self._rows)])

    def _load_best(self, folder: Path) -> bool:
        """Load the weights of the best line; False if they are missing or damaged."""
        row = next((row for row in reversed(self._rows) if "sha256" in row), None)
        if row is None:
            return True
        file = folder / _best_name(row["rate"], row["epoch"])
        if not file.is_file() or file_sha256(file) != row["sha256"]:
            say(f"{file}: missing or damaged; the fine-tuning starts over")
            return False
        self.best = Best(row["score"], row["learning_rate"], row["epoch"], load_file(file))
        return True

    @property
    def seconds(self) -> float:
        """Seconds of all attempts, without the work that a kill lost."""
        return self._before + time.monotonic() - self._start

    def scores(self, rate: int) -> list[float]:
        """Dev scores after each epoch with the learning rate of this index."""
        return [row["score"] for row in self._rows if row["rate"] == rate and "score" in row]

    def diverged(self, rate: int) -> bool:
        """Whether the loss with this learning rate was not finite."""
        return any(row["rate"] == rate and "score" not in row for row in self._rows)

    def add_score(self, rate: int, learning_rate: float, score: float, weights: Mapping[str, torch.Tensor]) -> None:
        """Record the dev score after the next epoch; the weights are copied if they are the best.

        Args:
            rate: index of the learning rate.
            learning_rate: the learning rate.
            score: dev score.
            weights: the model's state.
        """
        epoch = len(self.scores(rate)) + 1
        row: dict[str, Any] = {"rate": rate, "learning_rate": learning_rate, "epoch": epoch, "score": score}
        if self.best is None or score > self.best.dev_score:
            copied = {name: value.detach().cpu().clone() for name, value in weights.items()}
            self.best = Best(score, learning_rate, epoch, copied)
            if self.folder is not None:
                row["sha256"] = _write_weights(self.folder / _best_name(rate, epoch), copied)
        self._add(row)
        if self.folder is not None and "sha256" in row:
            for old in self.folder.glob("best-*.safetensors"):
                if old.name != _best_name(rate, epoch):
                    old.unlink()

    def add_divergence(self, rate: int) -> None:
        """Record that the loss with this learning rate was not finite."""
        self._add({"rate": rate})

    def _add(self, row: dict[str, Any]) -> None:
        row["seconds"] = round(self.seconds, 3)
        self._rows.append(row)
        if self.folder is not None:
            append_jsonl(self.folder / EVALUATIONS, row)

    def attempt(self, rate: int, model: torch.nn.Module, optimizer: torch.optim.AdamW) -> "Attempt":
        """Continue the training with one learning rate from its newest checkpoint, if there is one.

        Args:
            rate: index of the learning rate.
            model: the model with its first weights.
            optimizer: its optimizer.
        """
        if self.folder is None:
            return Attempt(self, None, Position(), None)
        folder = self.folder / f"rate-{rate}"
        folder.mkdir(exist_ok=True)
        position = load_checkpoint(folder, model, optimizer)
        if position is not None:
            self._before = max(self._before, position.seconds)
            say(f"fine-tuning resumes after {position.step} updates")
        saver = Saver(folder, model, optimizer, CHECKPOINT_SECONDS)
        return Attempt(self, folder, position or Position(), saver)


@dataclass
class Attempt:
    """Training with one learning rate, from a position on.

    Args:
        state: state of the whole fine-tuning.
        folder: folder of its checkpoints; None saves none.
        position: position after the last update.
        saver: saves checkpoints at intervals.
    """

    state: TuningState
    folder: Path | None
    position: Position
    saver: Saver | None

    def begin_update(self) -> None:
        """Weights and position disagree from here to `end_update`, so no checkpoint is saved in between."""
        if self.saver is not None:
            self.saver.whole = False

    def end_update(self, epoch: int, index: int) -> None:
        """Count an update and save a checkpoint if one is due.

        Args:
            epoch: number of the epoch, from 0.
            index: index of the next batch in it.
        """
        self.position.advance(epoch, index, 0, self.state.seconds - self.position.seconds)
        if self.saver is not None:
            self.saver.whole = True
            self.saver.save_when_due(self.position)

    def save(self) -> None:
        """Save a checkpoint now, unless an update is incomplete."""
        if self.saver is not None:
            self.saver.save(self.position)

    def finish(self) -> None:
        """Delete the checkpoints: the dev scores and the best weights are all that is needed from now on."""
        if self.folder is not None:
            remove_checkpoints(self.folder)


def _read(file: Path) -> Any:
    """The content of a JSON file; None if it is damaged."""
    try:
        return json.loads(file.read_text())
    except ValueError:
        return None


def _best_name(rate: int, epoch: int) -> str:
    return f"best-{rate}-{epoch}.safetensors"


def _write_weights(file: Path, weights: Mapping[str, torch.Tensor]) -> str:
    """Write weights atomically and durably; returns the SHA-256 of the file."""
    writing = file.with_name("writing")
    save_file(dict(weights), writing)
    with writing.open("rb") as written:
        os.fsync(written.fileno())
    digest = file_sha256(writing)
    os.replace(writing, file)
    fsync_folder(file.parent)
    return digest
