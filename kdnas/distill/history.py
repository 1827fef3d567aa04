"""The log of a training stage, `history.jsonl`: losses and validations."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdnas.distill.checkpoint import Position, rewind_history
from kdnas.distill.options import LoopOptions
from kdnas.distill.processes import processes
from kdnas.distill.tracking import Track
from kdnas.store.json_files import append_jsonl


class Log:
    """Writes history.jsonl: losses every `log_every` steps, validations at regular intervals, and both at the last step."""

    def __init__(self, file: Path, position: Position, steps: int, options: LoopOptions, track: Track) -> None:
        self._file, self._steps, self._every, self._track = file, steps, options.log_every, track
        self._interval = max(1, -(-steps // options.validations))
        kept = rewind_history(file, position.step)
        self._validated = {row["step"] for row in kept if row["kind"] == "validation"}

    def loss_is_due(self, step: int) -> bool:
        return step % self._every == 0 or step == self._steps

    def write_loss(self, position: Position, loss: float, lr: float) -> None:
        self._write({"kind": "train", "loss": loss, "lr": lr, **position.row()})

    def validation_is_due(self, step: int) -> bool:
        """Whether to validate now; not if this step was validated before an interruption."""
        return step not in self._validated and (step % self._interval == 0 or step == self._steps)

    def write_validation(self, position: Position, metrics: Mapping[str, Any]) -> None:
        self._write({"kind": "validation", "step": position.step, "tokens": position.tokens, **metrics})
        self._validated.add(position.step)

    def _write(self, row: dict[str, Any]) -> None:
        append_jsonl(self._file, row)
        self._track(row)


class _NoLog(Log):
    """Log of the other processes. It writes nothing, because the main process logs the same values."""

    def __init__(self, *_: object) -> None:
        return

    def loss_is_due(self, step: int) -> bool:
        return False

    def validation_is_due(self, step: int) -> bool:
        return False


def log_of(file: Path, position: Position, steps: int, options: LoopOptions, track: Track) -> Log:
    """The log of this process; only the main process writes."""
    return (Log if processes().is_main_process else _NoLog)(file, position, steps, options, track)
