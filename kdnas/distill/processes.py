"""Training of one student in several processes (`accelerate launch`).

Each process computes its part of every update's batches, and all of them apply the sum of all gradients. Only the main process
writes; the others read the same folder.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from torch import Tensor

from kdnas.distill.updates import ROWS, rows_of
from kdnas.errors import UsageError
from kdnas.store.artifact import Artifact

Work = Callable[[Path], dict[str, Any]]


def processes() -> PartialState:
    """State of this process among all: `process_index`, `num_processes`, `is_main_process`."""
    return PartialState(cpu=not torch.cuda.is_available())


def require_even(accumulate: int) -> None:
    """Raise UsageError if an update's batches do not divide evenly among the processes."""
    count = processes().num_processes
    if accumulate % count:
        raise UsageError(
            f"accumulate is {accumulate}; with {count} processes give a multiple of {count}, so that all get equally many batches"
        )


def broadcast(value: Any) -> Any:
    """The main process's value, broadcast to all."""
    return broadcast_object_list([value])[0] if processes().num_processes > 1 else value


def build_together(make: Callable[[Work], Artifact], work: Work) -> Artifact:
    """Build an artifact with the work of all processes in the same folder; the main process writes it."""
    if processes().num_processes == 1:
        return make(work)
    if processes().is_main_process:
        artifact = make(lambda folder: work(Path(broadcast(folder))))
        broadcast(None)
        return Artifact.load(broadcast(artifact.path))
    folder = broadcast(None)
    if folder is not None:
        work(folder)
        broadcast(None)
    return Artifact.load(broadcast(None))


def total(values: Tensor) -> Tensor:
    """Sum over all processes."""
    if processes().num_processes > 1:
        dist.all_reduce(values)
    return values


def add_up_gradients(parameters: Iterable[Tensor]) -> None:
    """Sum the gradients over all processes; of embedding tables only the rows with gradients are exchanged."""
    if processes().num_processes == 1:
        return
    whole = []
    for parameter in parameters:
        if parameter.grad is None:
            continue
        rows = rows_of(parameter)
        if rows is None:
            whole.append(parameter.grad)
        else:
            _add_up_rows(parameter, rows)
    flat = total(torch.cat([gradient.flatten() for gradient in whole]))
    for gradient, part in zip(whole, flat.split([gradient.numel() for gradient in whole]), strict=True):
        gradient.copy_(part.view_as(gradient))


def _add_up_rows(table: Tensor, rows: Tensor) -> None:
    assert table.grad is not None
    count = torch.tensor([len(rows)], device=rows.device)
    counts = _gathered(count)
    longest = int(max(counts))
    ids, values = rows.new_zeros(longest), table.grad.new_zeros(longest, table.shape[1])
    ids[: len(rows)], values[: len(rows)] = rows, table.grad[rows]
    table.grad.index_fill_(0, rows, 0.0)
    everyones = []
    for number, their_ids, their_values in zip(counts, _gathered(ids), _gathered(values), strict=True):
        everyones.append(their_ids[: int(number)])
        table.grad.index_add_(0, everyones[-1], their_values[: int(number)])
    setattr(table, ROWS, everyones)


def _gathered(values: Tensor) -> list[Tensor]:
    """The values of all processes, in their order."""
    found = [torch.empty_like(values) for _ in range(processes().num_processes)]
    dist.all_gather(found, values)
    return found


def leave_process_group() -> None:
    """Destroy the process group, if there is one.

    Gloo's threads hold tensors; those that they free while the interpreter shuts down abort the process (PyTorch pull request
    179291).
    """
    if dist.is_initialized():
        dist.destroy_process_group()
