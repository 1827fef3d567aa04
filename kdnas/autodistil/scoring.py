"""Losses of members on held-out sentences, with the teacher run once for all members."""

from collections.abc import Mapping, Sequence

import torch
from accelerate import Accelerator
from torch import Tensor

from kdnas.autodistil.objective import FamilyObjective
from kdnas.distill.batches import Batch
from kdnas.distill.hidden_state import HiddenStateLoss
from kdnas.distill.moments import sample_of
from kdnas.distill.projection import fit_projections
from kdnas.models.arch import Arch
from kdnas.store.progress import stage


@torch.no_grad()
def held_out_losses(
    objective: FamilyObjective,
    archs: Sequence[Arch],
    batches: Sequence[Batch],
    accelerator: Accelerator,
    losses: Mapping[Arch, HiddenStateLoss] | None = None,
    title: str | None = None,
) -> dict[Arch, Tensor]:
    """Loss of each part of each member over all real tokens, (n_parts,) float64, without dropout.

    Args:
        objective: net and teacher.
        archs: members.
        batches: ids and mask, each (B, T), of held-out sentences.
        accelerator: device and precision.
        losses: linear maps of single members, from `fitted_losses`; by default those of their depth.
        title: name in the progress display; None shows none.
    """
    objective.eval()
    totals: dict[Arch, Tensor] = {}
    counts = [int(mask.sum()) for _, mask in batches]

    def add(ids: Tensor, mask: Tensor, count: int) -> None:
        with accelerator.autocast():
            inputs = (ids, mask, None)
            targets = objective.targets(inputs)
            for arch in archs:
                found = objective(arch, inputs, targets, (losses or {}).get(arch)).double().cpu() * count
                totals[arch] = totals.get(arch, 0.0) + found

    if title is None:
        for (ids, mask), count in zip(batches, counts, strict=True):
            add(ids, mask, count)
    else:
        with stage(title, sum(counts)) as progress:
            for (ids, mask), count in zip(batches, counts, strict=True):
                add(ids, mask, count)
                progress.advance(count)
    objective.train()
    return {arch: value / sum(counts) for arch, value in totals.items()}


@torch.no_grad()
def fitted_losses(
    objective: FamilyObjective, archs: Sequence[Arch], batches: Sequence[Batch], accelerator: Accelerator
) -> dict[Arch, HiddenStateLoss]:
    """Linear maps of Eq. 1 for each member alone, in closed form; the training's are a compromise of all members of a depth.

    Args:
        objective: net and teacher.
        archs: members.
        batches: ids and mask, each (B, T), of training sentences; those after `SAMPLE_TOKENS` tokens are not used.
        accelerator: device and precision.
    """
    objective.eval()
    found = {}
    with accelerator.autocast(), stage("fit linear maps", len(archs)) as progress:
        sample = [(ids, mask, None) for ids, mask in sample_of(batches)]
        targets = [objective.targets(inputs) for inputs in sample]
        for arch in archs:
            found[arch] = objective.new_loss(arch.layers)
            known = zip(sample, targets, strict=True)
            fit_projections(
                found[arch], ((objective.states(arch, inputs), target, inputs[1]) for inputs, target in known)
            )
            progress.advance()
    objective.train()
    return found
