"""Number of updates that fit into a stage's minutes. It is measured before training, and extended if it was too low."""

import json
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from torch import nn

from kdnas.distill.batches import TrainBatches
from kdnas.distill.checkpoint import Position
from kdnas.distill.loop import seconds_per_step
from kdnas.distill.options import LoopOptions
from kdnas.store.json_files import write_json
from kdnas.store.progress import say

PLAN = "plan.json"
WARM_BATCHES, TIMED_BATCHES = 3, 9
UNUSED = 0.4  # training is extended if more than this fraction of the minutes is left
USED = 0.9  # fraction of the remaining time to plan for; validations take the rest


def planned_steps(
    folder: Path,
    objective: nn.Module,
    batches: TrainBatches,
    options: LoopOptions,
    validate: Callable[[], dict[str, Any]],
) -> int:
    """Number of updates: `steps`, or as many as fit into `minutes`; decided once and kept in plan.json across restarts."""
    path = folder / PLAN
    if path.exists():
        return int(json.loads(path.read_text())["steps"])
    if options.steps is not None:
        write_json(path, {"steps": options.steps})
        return options.steps
    start = time.monotonic()
    there = min(len(batches.epoch(0)), WARM_BATCHES + TIMED_BATCHES)
    device = next(objective.parameters()).device
    timed = (made.inputs(device) for made in islice(batches.after(0, 0), there))
    warm = min(WARM_BATCHES, there - 1)
    step_seconds = seconds_per_step(objective, timed, options, warm, limit_seconds=min(20, 6 * options.minutes))
    validation_start = time.monotonic()
    validate()
    validation_seconds = time.monotonic() - validation_start
    left = options.minutes * 60 - (time.monotonic() - start) - (options.validations + 1) * validation_seconds
    step_seconds *= options.accumulate
    steps = max(1, int(left / step_seconds))
    write_json(path, {"steps": steps, "seconds_per_step": step_seconds, "validation_seconds": validation_seconds})
    say(f"{steps} steps of {step_seconds:.2f} s fit into {options.minutes:g} minutes")
    return steps


def extended_steps(folder: Path, options: LoopOptions, position: Position, elapsed_seconds: float) -> int | None:
    """New total number of updates if the plan was far too low; None if most of the minutes are used.

    Other work on the host can make steps slow while the plan is measured: one run planned 10 steps although 370 fitted. The
    learning rate follows the new number, so it rises again. The number is kept in plan.json across restarts.

    Args:
        folder: working folder with the plan.
        options: training options; if `steps` is set, the number is never extended.
        position: state at the end of training.
        elapsed_seconds: seconds since this attempt of the stage began.
    """
    budget = options.minutes * 60
    left = budget - max(elapsed_seconds, position.seconds)
    if options.steps is not None or left < UNUSED * budget:
        return None
    steps = position.step + int(USED * left * position.step / position.seconds)
    if steps < 1.5 * position.step:
        return None
    plan = json.loads((folder / PLAN).read_text())
    write_json(folder / PLAN, {**plan, "steps": steps, "extended_from": position.step})
    say(f"{left:.0f} of {budget:.0f} s are left after {position.step} steps: extending training to {steps} steps")
    return steps
