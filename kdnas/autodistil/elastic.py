"""AdamW of a net of which an update trains a part.

A tensor that gets no gradient still moves under AdamW, by its momentum and by weight decay. Here the parts of the net that no
member of an update has do not move, and neither do their moments. Feed-forward layers are divided into blocks of neurons at the
sizes of the sub-space. Each block is a separate parameter of the optimizer, with its own step count. It is a copy; the values of
the trained blocks are written back to the net after each update.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kdnas.autodistil.sub_space import SubSpace
from kdnas.distill.updates import update
from kdnas.models.arch import Arch
from kdnas.models.family import family_of


class ElasticParameters(nn.Module):
    """The parameters of a net for an optimizer: blocks of neurons, and the other parameters themselves.

    Args:
        net: stock model of the shape `space.largest`.
        space: the members of the net.
        losses: trained part of the objective; by depth, as a string, if it has parts for members of one depth.
    """

    def __init__(self, net: PreTrainedModel, space: SubSpace, losses: nn.ModuleDict) -> None:
        super().__init__()
        self.embeddings, self.losses, self.own = net.embeddings, losses, nn.ParameterDict()
        self._space = space
        self._blocks: list[tuple[nn.Parameter, Tensor, int, slice, int]] = []  # copy, whole, layer, neurons, dimension
        self._layers: list[tuple[int, Tensor]] = []
        family, edges = family_of(net.config), [0, *space.ffn]
        for number in range(1, space.largest.layers + 1):
            layer = family.layer(net, number)
            cut = {id(layer.expand.weight): 0, id(layer.expand.bias): 0, id(layer.contract.weight): 1}
            for name, whole in family.layer_list(net)[number - 1].named_parameters():
                key = f"{number}/{name.replace('.', '/')}"
                if id(whole) not in cut:
                    self.own[key] = whole
                    self._layers.append((number, whole))
                    continue
                for start, end in pairwise(edges):
                    dimension, neurons = cut[id(whole)], slice(start, end)
                    block = nn.Parameter(_part(whole.detach(), neurons, dimension).clone())
                    self.own[f"{key}/{start}"] = block
                    self._blocks.append((block, whole, number, neurons, dimension))

    def update(self, optimizer: torch.optim.Optimizer, archs: Sequence[Arch], lr: float) -> Tensor:
        """Update what these members have by the net's gradients, and clear the gradients.

        Args:
            optimizer: optimizer of this module's parameters.
            archs: members whose gradients were added up.
            lr: learning rate.

        Returns:
            The norm of the gradients before clipping, (); if it is not finite, nothing changed.
        """
        sizes: dict[int, int] = {}  # layer of the net to the largest number of neurons of the members
        for arch in archs:
            for number in self._space.kept(arch.layers):
                sizes[number] = max(sizes.get(number, 0), arch.ffn)
        for number, whole in self._layers:
            if number not in sizes:
                whole.grad = None
        for block, whole, number, neurons, dimension in self._blocks:
            trained = whole.grad is not None and neurons.start < sizes.get(number, 0)
            block.grad = _part(whole.grad, neurons, dimension).contiguous() if trained else None
        depths = {str(arch.layers) for arch in archs}
        for depth, loss in self.losses.items():
            if depth not in depths:
                loss.zero_grad(set_to_none=True)
        norm = update(optimizer, lr)
        self._write_back(trained_only=True)
        for whole in [whole for _, whole in self._layers] + [block[1] for block in self._blocks]:
            whole.grad = None
        return norm

    def restored(self) -> None:
        """Write all blocks to the net, after they were loaded from a checkpoint."""
        self._write_back(trained_only=False)

    @torch.no_grad()
    def _write_back(self, trained_only: bool) -> None:
        for block, whole, _, neurons, dimension in self._blocks:
            if block.grad is not None or not trained_only:
                _part(whole.detach(), neurons, dimension).copy_(block)
                block.grad = None


def _part(whole: Tensor, neurons: slice, dimension: int) -> Tensor:
    """View of some neurons of a tensor whose dimension 0 or 1 are the neurons."""
    return whole[neurons] if dimension == 0 else whole[:, neurons]
