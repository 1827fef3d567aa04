"""`kdnas filter --shard-index`: several processes divide the units of one run among them, as Slurm or Kubernetes started them."""

import os
from collections.abc import Mapping

from kdnas.errors import UsageError


def shard_of(index: int | None, count: int | None, environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Index and number of the processes that work on a run; (0, 1) for one process.

    Without options it reads a Slurm job array (`SLURM_ARRAY_TASK_ID`, `_COUNT`, `_MIN`, `_STEP`), the tasks of a Slurm step
    (`SLURM_PROCID`, `SLURM_STEP_NUM_TASKS`), or the index of an indexed Kubernetes job (`JOB_COMPLETION_INDEX`), which needs
    the count as an option.

    Raises:
        UsageError: one of the two is missing, or the index is not below the count.
    """
    if index is None and count is None:
        index, count = _from_slurm(environment)
    if index is None and count is not None and "JOB_COMPLETION_INDEX" in environment:
        index = _number(environment, "JOB_COMPLETION_INDEX")
    if index is None and count is None:
        return 0, 1
    if index is None or count is None:
        raise UsageError(f"shard_index is {index} and shard_count is {count}; give both, or neither")
    if not 0 <= index < count:
        raise UsageError(f"shard_index is {index}; with shard_count {count}, 0 to {count - 1} are allowed")
    return index, count


def _from_slurm(environment: Mapping[str, str]) -> tuple[int | None, int | None]:
    if "SLURM_ARRAY_TASK_COUNT" in environment:
        first, step = (
            _number(environment, "SLURM_ARRAY_TASK_MIN", "0"),
            _number(environment, "SLURM_ARRAY_TASK_STEP", "1"),
        )
        task = _number(environment, "SLURM_ARRAY_TASK_ID")
        return (task - first) // max(1, step), _number(environment, "SLURM_ARRAY_TASK_COUNT")
    tasks = _number(environment, "SLURM_STEP_NUM_TASKS", "1")
    if tasks > 1 and "SLURM_PROCID" in environment:
        return _number(environment, "SLURM_PROCID"), tasks
    return None, None


def _number(environment: Mapping[str, str], name: str, default: str = "") -> int:
    value = environment.get(name, default)
    try:
        return int(value)
    except ValueError:
        raise UsageError(
            f"{name} is '{value}'; a whole number is needed, or give --shard-index and --shard-count"
        ) from None
