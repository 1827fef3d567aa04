"""Updates of a family: which members, on which batch, and one pass of the teacher for all of them."""

import time
from collections.abc import Iterator
from itertools import islice

import torch
from accelerate import Accelerator
from torch import Tensor

from kdnas.autodistil.elastic import ElasticParameters
from kdnas.autodistil.objective import FamilyObjective, Inputs, Targets
from kdnas.autodistil.options import FamilyOptions
from kdnas.autodistil.schedule import members, updates_per_pass
from kdnas.distill.batches import Made
from kdnas.distill.checkpoint import Position
from kdnas.distill.processes import add_up_gradients, processes, total
from kdnas.models.arch import Arch


class FamilyUpdates:
    """Implements `kdnas.distill.loop.Updates`.

    Between the updates of one pass the position stays at its first batch. A run that is killed there reads the batch again and
    continues with the next member.

    Args:
        objective: the net and its losses.
        elastic: its parameters.
        optimizer: optimizer of `elastic`.
        accelerator: device and precision.
        coming: batches of this process from the position on.
        options: schedule, seed and `accumulate`.
    """

    def __init__(
        self,
        objective: FamilyObjective,
        elastic: ElasticParameters,
        optimizer: torch.optim.AdamW,
        accelerator: Accelerator,
        coming: Iterator[Made],
        options: FamilyOptions,
    ) -> None:
        self._objective, self._elastic, self._optimizer = objective, elastic, optimizer
        self._accelerator, self._coming, self._options = accelerator, coming, options
        self._pass: list[tuple[Made, Inputs, Targets]] = []
        self.archs: list[Arch] = []  # of the latest update
        self._losses: dict[Arch, float] = {}
        self._trained, self._start = 0, time.monotonic()

    def gradients(self, position: Position) -> tuple[float, int, Made]:
        """Add up the gradients of this update's members; the loss is their mean, and tokens count once for each member."""
        each = updates_per_pass(self._options)
        index = position.step % each
        if index == 0 or not self._pass:
            self._read()
        self.archs = members(self._objective.space, self._options, position.step)
        losses = [self._backward(arch) for arch in self.archs]
        tokens = sum(int(made.mask.sum()) for made, _, _ in self._pass) * len(self.archs)
        mean = torch.stack(losses).double()
        sums = total(torch.cat([mean, torch.tensor([tokens], device=mean.device)]))
        add_up_gradients([*self._objective.net.parameters(), *self._objective.losses.parameters()])
        self._losses |= dict(zip(self.archs, sums[:-1].tolist(), strict=True))
        self._trained += len(self.archs)
        made = self._pass[-1][0]
        if index + 1 < each:  # stay at the first batch of the pass
            made = made._replace(epoch=position.epoch, batch=position.index - 1)
        return float(sums[:-1].mean()), int(sums[-1]), made

    def apply(self, lr: float) -> Tensor:
        """Update what the members of the latest gradients have."""
        return self._elastic.update(self._optimizer, self.archs, lr)

    def note(self, loss: float) -> str:
        """The loss, members a second, and the members with the lowest and the highest latest loss."""
        speed = self._trained / max(1e-9, time.monotonic() - self._start)
        low, high = (choose(self._losses, key=self._losses.__getitem__) for choose in (min, max))
        return (
            f"loss {loss:.4f}, {speed:.2f} members/s, best {low.name} {self._losses[low]:.4f}, "
            f"worst {high.name} {self._losses[high]:.4f}"
        )

    def _read(self) -> None:
        """Read the next batches of this process and run the teacher on them."""
        self._pass = []
        for made in islice(self._coming, self._options.accumulate // processes().num_processes):
            inputs = made.inputs(self._accelerator.device)
            with self._accelerator.autocast():
                self._pass.append((made, inputs, self._objective.targets(inputs)))

    def _backward(self, arch: Arch) -> Tensor:
        """Mean loss of a member over the batches, (); adds to the gradients."""
        found = []
        for _, inputs, targets in self._pass:
            with self._accelerator.autocast():
                losses = self._objective(arch, inputs, targets).mean() / self._options.accumulate
            self._accelerator.backward(losses)
            found.append(losses.detach())
        return torch.stack(found).sum()
