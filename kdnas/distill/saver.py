"""When the state of a training stage is saved."""

import time
from pathlib import Path

import torch
from torch import nn

from kdnas.distill.checkpoint import Position, save_checkpoint
from kdnas.distill.processes import processes


class Saver:
    """Saves checkpoints at intervals, using at most a twentieth of the time; with interval 0, after each update."""

    def __init__(self, folder: Path, objective: nn.Module, optimizer: torch.optim.AdamW, every_seconds: float) -> None:
        self.whole = True
        self._folder, self._objective, self._optimizer = folder, objective, optimizer
        self._every_seconds, self._cost_seconds, self._last = every_seconds, 0.0, time.monotonic()

    def save_when_due(self, position: Position) -> None:
        wait = max(self._every_seconds, 20 * self._cost_seconds) if self._every_seconds else 0.0
        if time.monotonic() - self._last >= wait:
            self.save(position)

    def give_up(self, position: Position) -> None:
        """Save the state before a failed update."""
        self.whole = True
        self.save(position)

    def save(self, position: Position) -> None:
        """Save now in the main process, unless an update is incomplete."""
        if self.whole and processes().is_main_process:
            start = time.monotonic()
            save_checkpoint(self._folder, self._objective, self._optimizer, position)
            self._last = time.monotonic()
            self._cost_seconds = self._last - start
