"""The training loop: fused AdamW, linear warm-up and decay, bf16 autocast through `accelerate`, exact resume."""

import atexit
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import AutocastKwargs
from torch import Tensor, nn

from kdnas.distill.batches import Made, TrainBatches
from kdnas.distill.checkpoint import Position
from kdnas.distill.cut_table import update_lazily
from kdnas.distill.fast_training import FreedMemory, keep_freed_memory
from kdnas.distill.history import log_of
from kdnas.distill.options import LoopOptions
from kdnas.distill.processes import add_up_gradients, leave_process_group, processes, total
from kdnas.distill.saver import Saver
from kdnas.distill.tracking import tracked
from kdnas.distill.turns import TrainingLoop, Turn, run_alone
from kdnas.distill.updates import LR_FACTOR, follow_rows, update
from kdnas.errors import DivergenceError, Terminated
from kdnas.store.host import has_bf16, physical_cores

BETAS = (0.9, 0.98)


def resolve_precision(precision: str) -> str:
    """`bf16` or `f32`: `auto` is bf16 on CPUs with native bf16 and on GPUs."""
    if precision != "auto":
        return precision
    return "bf16" if torch.cuda.is_available() or has_bf16() else "f32"


def make_accelerator(precision: str) -> Accelerator:
    """Device and autocast of one training loop. Afterwards the process keeps the memory that it frees.

    `accelerate` allows one mixed precision per process. It is always bf16 here, and float32 loops switch autocast off, so that
    loops of both precisions can run in one process.

    Args:
        precision: `auto`, `bf16` or `f32`.
    """
    keep_freed_memory()
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != "bf16":
        AcceleratorState._reset_state()  # set by other code in this process
    autocast = AutocastKwargs(enabled=resolve_precision(precision) == "bf16")
    atexit.unregister(leave_process_group)
    atexit.register(leave_process_group)
    return Accelerator(cpu=not torch.cuda.is_available(), mixed_precision="bf16", kwargs_handlers=[autocast])


def use_all_cores() -> None:
    """One thread per physical core, unless OMP_NUM_THREADS is set."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(physical_cores())


def make_optimizer(
    module: nn.Module, peak_lr: float, weight_decay: float = 0.01, embedding_lr_factor: float = 1.0
) -> torch.optim.AdamW:
    """Fused AdamW over the trainable parameters, for `kdnas.distill.updates.update`; no decay of biases and layer norms.

    Args:
        module: module to train.
        peak_lr: largest learning rate.
        weight_decay: weight decay of matrices.
        embedding_lr_factor: learning rate of the embedding tables, as a multiple of the others' learning rate.
    """
    follow_rows(module)
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    tables = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding)}
    own = [one for one in trained if embedding_lr_factor != 1.0 and id(one) in tables]
    rest = [one for one in trained if one.dim() > 1 and not any(one is table for table in own)]
    groups: list[dict[str, Any]] = [
        {"params": rest, "weight_decay": weight_decay},
        {"params": [parameter for parameter in trained if parameter.dim() <= 1], "weight_decay": 0.0},
    ]
    if own:
        groups.append({"params": own, "weight_decay": weight_decay, LR_FACTOR: embedding_lr_factor})
    optimizer = torch.optim.AdamW(groups, lr=peak_lr, betas=BETAS, fused=True)
    update_lazily(module, optimizer)
    return optimizer


def lr_factor(step: int, steps: int, warmup_fraction: float, schedule: str = "linear") -> float:
    """Fraction of the peak learning rate at a 0-based step: linear warm-up, then decay that reaches 0 after the last step.

    Args:
        step: 0-based step.
        steps: total number of steps.
        warmup_fraction: fraction of the steps in which the rate rises.
        schedule: shape of the decay, `linear` or `cosine`.
    """
    warmup = max(1, round(warmup_fraction * steps))
    if step < warmup:
        return (step + 1) / warmup
    left = (steps - step) / max(1, steps - warmup)
    return left if schedule == "linear" else (1 - math.cos(math.pi * left)) / 2


def train_step(
    objective: nn.Module, optimizer: torch.optim.Optimizer, accelerator: Accelerator, batch: Sequence[Any], lr: float
) -> Tensor:
    """One update on the mean of the objective's parts.

    Args:
        objective: maps ids and mask (B, T) to one loss per part, (n_parts,).
        optimizer: from `make_optimizer`.
        accelerator: from `make_accelerator`.
        batch: inputs of the objective.
        lr: learning rate of this step.

    Returns:
        Loss of each part, (n_parts,), detached.
    """
    losses = backward(objective, accelerator, batch)
    update(optimizer, lr)
    return losses


def backward(objective: nn.Module, accelerator: Accelerator, batch: Sequence[Any], fraction: float = 1.0) -> Tensor:
    """Loss of each part (n_parts,) times the batch's fraction of an update; accumulates the gradients of its mean."""
    with accelerator.autocast():
        losses: Tensor = objective(*batch) * fraction
    accelerator.backward(losses.mean())
    return losses.detach()


def seconds_per_step(
    objective: nn.Module,
    batches: Iterable[Sequence[Any]],
    options: LoopOptions,
    warm: int = 3,
    limit_seconds: float = 20.0,
) -> float:
    """Measured median time of a training step; weights and random state are restored afterwards.

    Args:
        objective: objective to train.
        batches: warm-up batches first, then the timed ones.
        options: precision and optimizer settings.
        warm: number of untimed batches: the first step of each shape is slow.
        limit_seconds: time limit in seconds; at least one step is timed.
    """
    accelerator = make_accelerator(options.precision)
    optimizer = make_optimizer(objective, options.peak_lr, options.weight_decay, options.embedding_lr_factor)
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    rng = torch.get_rng_state()
    times: list[float] = []
    begin = time.monotonic()
    for number, batch in enumerate(batches):
        start = time.perf_counter()
        float(train_step(objective, optimizer, accelerator, batch, 0.0).sum())
        if number >= warm:
            times.append(time.perf_counter() - start)
        if times and time.monotonic() - begin > limit_seconds:
            break
    optimizer.zero_grad(set_to_none=True)
    objective.load_state_dict(before)
    torch.set_rng_state(rng)
    return median(times)


class Updates(Protocol):
    """The gradients of each update, and their use. A family of students has its own (`kdnas.autodistil.updates`)."""

    def gradients(self, position: Position) -> tuple[float, int, Made]:
        """Compute the gradients of the update after a position; returns its loss, real tokens and last batch."""

    def apply(self, lr: float) -> Tensor:
        """Update the weights at a learning rate; returns the norm of the gradients, (). If it is not finite, nothing changed."""

    def note(self, loss: float) -> str:
        """Text for the progress display."""


class BatchUpdates:
    """Updates of one objective, each on the next batches.

    Args:
        objective: as for `train`.
        optimizer: its optimizer.
        coming: batches of this process.
        options: as for `train`.
    """

    def __init__(
        self, objective: nn.Module, optimizer: torch.optim.AdamW, coming: Iterator[Made], options: LoopOptions
    ) -> None:
        self._objective, self._optimizer, self._coming, self._options = objective, optimizer, coming, options
        self._accelerator = make_accelerator(options.precision)

    def gradients(self, position: Position) -> tuple[float, int, Made]:
        """As in `Updates`."""
        return _gradients(self._objective, self._accelerator, self._coming, self._options)

    def apply(self, lr: float) -> Tensor:
        """As in `Updates`."""
        return update(self._optimizer, lr)

    def note(self, loss: float) -> str:
        """As in `Updates`."""
        return f"loss {loss:.4f}"


def train(
    objective: nn.Module,
    optimizer: torch.optim.AdamW,
    batches: TrainBatches,
    options: LoopOptions,
    steps: int,
    folder: Path,
    position: Position,
    validate: Callable[[], dict[str, Any]],
    title: str,
    updates: Updates | None = None,
) -> Position:
    """Run `training` to its end, alone in this process.

    Args:
        objective: as for `training`, like all that is not named here.
        validate: computes the values of a validation row.
        title: name of the stage in the progress display.
    """
    loop = training(objective, optimizer, batches, options, steps, folder, position, title, updates)
    return run_alone(loop, title, position.step, steps, validate)


def training(
    objective: nn.Module,
    optimizer: torch.optim.AdamW,
    batches: TrainBatches,
    options: LoopOptions,
    steps: int,
    folder: Path,
    position: Position,
    title: str,
    updates: Updates | None = None,
) -> TrainingLoop:
    """Train to `steps`. On a CPU, a killed run that resumes from its checkpoint is bit-identical to an uninterrupted run.

    Args:
        objective: maps ids and mask (B, T) to one loss per part, (n_parts,); on the accelerator's device.
        optimizer: its optimizer, already restored if training resumes.
        batches: batches of the training split.
        options: learning rate, precision, logging.
        steps: total number of updates.
        folder: working folder of the artifact, for `history.jsonl` and checkpoints.
        position: state to start from; it advances with the training.
        title: title of the run for trackers.
        updates: by default, updates of the objective on `batches`; others have the state in `objective` and `optimizer`.

    Raises:
        DivergenceError: a loss or gradient is not finite; the state before it is in a checkpoint.
    """
    if updates is None:
        updates = BatchUpdates(objective, optimizer, batches.after(position.epoch, position.index), options)
    saver, freed, note = Saver(folder, objective, optimizer, options.checkpoint_seconds), FreedMemory(), ""
    with tracked(options, folder, title) as track:
        log = log_of(folder / "history.jsonl", position, steps, options, track)
        try:
            while True:
                if log.validation_is_due(position.step):
                    metrics = yield Turn(position.step, True, note)
                    assert metrics is not None
                    log.write_validation(position, metrics)
                if position.step >= steps:
                    break
                yield Turn(position.step, False, note)
                start = time.perf_counter()
                _draw_apart(options.seed, position.step)
                lr = options.peak_lr * lr_factor(position.step, steps, options.warmup_fraction, options.schedule)
                loss, tokens, made = updates.gradients(position)
                saver.whole = False  # weights and position disagree until the position is advanced
                if not (math.isfinite(loss) and math.isfinite(updates.apply(lr))):
                    saver.give_up(position)
                    raise _diverged(loss, position, made)
                position.advance(made.epoch, made.batch + 1, tokens, time.perf_counter() - start)
                if log.loss_is_due(position.step):
                    log.write_loss(position, loss, lr)
                    note = updates.note(loss)
                saver.whole = True
                saver.save_when_due(position)
                freed.give_back_when_due()
        except (KeyboardInterrupt, Terminated):
            saver.save(position)
            raise
    saver.save(position)
    return position


def _gradients(
    objective: nn.Module, accelerator: Accelerator, coming: Iterator[Made], options: LoopOptions
) -> tuple[float, int, Made]:
    """Compute an update's gradients, summed over all processes; returns its loss, real tokens and last batch."""
    tokens, parts = 0, []
    for made in islice(coming, options.accumulate // processes().num_processes):
        parts.append(backward(objective, accelerator, made.inputs(accelerator.device), 1 / options.accumulate))
        tokens += int(made.mask.sum())
    mean = torch.stack(parts).sum(0).mean().double()
    sums = total(torch.stack([mean, torch.tensor(tokens, device=mean.device)]))
    add_up_gradients(objective.parameters())
    return float(sums[0]), int(sums[1]), made


def _draw_apart(seed: int, step: int) -> None:
    """Give each of several processes its own dropout seed, because a checkpoint has only the main process's random state."""
    state = processes()
    if state.num_processes > 1:
        torch.manual_seed(int(np.random.SeedSequence([seed, step, state.process_index]).generate_state(1)[0]))


def _diverged(loss: float, position: Position, made: Made) -> DivergenceError:
    return DivergenceError(
        f"the loss is {loss}, or a gradient not finite, at step {position.step + 1}, batch {made.batch} of epoch {made.epoch}: "
        f"training diverged; the state before it is kept; run again with a lower --peak_lr"
    )
