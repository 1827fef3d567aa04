"""Number of updates of a family that fit into its minutes, from the time of some real ones."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kdnas.autodistil.elastic import ElasticParameters
from kdnas.autodistil.options import FamilyOptions
from kdnas.autodistil.schedule import members, updates_per_pass
from kdnas.autodistil.sub_space import SubSpace
from kdnas.autodistil.updates import FamilyUpdates
from kdnas.distill.checkpoint import Position, random_states, set_random_states
from kdnas.distill.step_budget import PLAN
from kdnas.models.arch import Arch
from kdnas.store.json_files import write_json
from kdnas.store.progress import say

WARM_PASSES, TIMED_PASSES = 1, 6
SEQ_LEN = 32  # tokens, for the relative cost of members
BACKWARD = 3  # cost of a training step relative to a pass without gradients


def planned_updates(
    folder: Path,
    updates: FamilyUpdates,
    elastic: ElasticParameters,
    space: SubSpace,
    teacher: Arch | None,
    options: FamilyOptions,
    validate: Callable[[], dict[str, Any]],
) -> int:
    """Number of updates: `steps`, or as many as fit into `minutes`; decided once and kept in plan.json across restarts.

    Members differ in cost, so the time of the timed updates is scaled from their members to those of a long run. The weights and
    the random state are restored afterwards; `updates` must not be used again.

    Args:
        folder: working folder of the net.
        updates: updates from the start, with a separate optimizer.
        elastic: parameters of the net.
        space: the members.
        teacher: shape of the teacher; None if it is no architecture of kdnas.
        options: minutes or steps.
        validate: one validation.
    """
    path = folder / PLAN
    if path.exists():
        return int(json.loads(path.read_text())["steps"])
    if options.steps is not None:
        write_json(path, {"steps": options.steps})
        return options.steps
    start, each = time.monotonic(), updates_per_pass(options)
    before = {name: value.clone() for name, value in elastic.state_dict().items()}
    rng, position = random_states(), Position()
    seconds, timed = 0.0, list[int]()
    for step in range((WARM_PASSES + TIMED_PASSES) * each):
        if timed and time.monotonic() - start > min(30.0, 6 * options.minutes):
            break
        begin = time.perf_counter()
        _, _, made = updates.gradients(position)
        updates.apply(0.0)
        position.advance(made.epoch, made.batch + 1, 0, 0.0)
        if step >= WARM_PASSES * each:
            seconds += time.perf_counter() - begin
            timed.append(step)
    elastic.load_state_dict(before)
    elastic.restored()
    set_random_states(rng)
    validation_start = time.monotonic()
    validate()
    validation_seconds = time.monotonic() - validation_start
    long_run = range(20 * len(space.members) * each)
    step_seconds = (
        seconds / relative_cost(space, teacher, options, timed) * relative_cost(space, teacher, options, long_run)
    )
    step_seconds /= len(long_run)
    left = options.minutes * 60 - (time.monotonic() - start) - (options.validations + 1) * validation_seconds
    steps = max(1, int(left / step_seconds))
    write_json(path, {"steps": steps, "seconds_per_step": step_seconds, "validation_seconds": validation_seconds})
    say(f"{steps} updates of {step_seconds:.2f} s fit into {options.minutes:g} minutes")
    return steps


def relative_cost(space: SubSpace, teacher: Arch | None, options: FamilyOptions, steps: range | list[int]) -> float:
    """Operations of some updates, relative only.

    Args:
        space: the members.
        teacher: shape of the teacher; None leaves it out.
        options: schedule and seed.
        steps: 0-based updates.
    """
    passes = 0 if teacher is None else teacher.flops(SEQ_LEN) / updates_per_pass(options)
    trained = sum(arch.flops(SEQ_LEN) for step in steps for arch in members(space, options, step))
    return passes * len(steps) + BACKWARD * trained
