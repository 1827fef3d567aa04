"""The loss of any member of a net, with one pass of the teacher for all members of a batch."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kdnas.autodistil.options import FamilyOptions
from kdnas.autodistil.slices import Member
from kdnas.autodistil.sub_space import SubSpace
from kdnas.distill.hidden_state import HiddenStateLoss, TeacherStates
from kdnas.distill.mapping import Mapping as LayerMapping
from kdnas.distill.mapping import layer_pairs
from kdnas.distill.relation import QueriesKeysValues, Relations, resolve_relation_heads, resolve_teacher_layer
from kdnas.models.arch import Arch
from kdnas.models.family import shape_of

Inputs = tuple[Tensor, Tensor, Tensor | None]  # ids, mask and token types, each (B, T)
Targets = Mapping[Any, Tensor]  # teacher states by layer, or queries, keys and values by letter, each (B, T, D_T)


class FamilyObjective(nn.Module):
    """A net, its members, and a frozen teacher. Members of one depth share the linear maps of Eq. 1.

    Args:
        net: stock model of the shape `space.largest`.
        space: the members of the net.
        teacher: encoder without pooler; not a submodule, so it is neither trained nor saved.
        options: objective, mapping and relations.
        variance: variance of the teacher's layers by layer, 1-based, for the objective `hidden-states`.
    """

    def __init__(
        self,
        net: PreTrainedModel,
        space: SubSpace,
        teacher: PreTrainedModel,
        options: FamilyOptions,
        variance: Mapping[int, float],
    ) -> None:
        super().__init__()
        self.net, self.space = net, space
        self._teacher_shape, self._options, self._variance = shape_of(teacher.config), options, variance
        self._members: dict[Arch, Member] = {}
        self._relations: Relations | None = None
        self.losses = nn.ModuleDict()
        if options.objective == "relations":
            self._relations = relations_of(space, self._teacher_shape.hidden, self._teacher_shape.layers, options)
            self._views = (QueriesKeysValues(teacher, self._relations.teacher_layer),)  # in a tuple: not a submodule
        else:
            self.losses.update({str(depth): self.new_loss(depth) for depth in space.layers})
            self._states = TeacherStates(teacher, wanted_layers(space, self._teacher_shape.layers, options))

    def new_loss(self, depth: int) -> HiddenStateLoss:
        """Eq. 1 for members of a depth, with new linear maps."""
        pairs = layer_pairs(depth, self._teacher_shape.layers, LayerMapping(self._options.mapping))
        divisors = torch.tensor([self._variance[layer] for _, layer in pairs])
        return HiddenStateLoss(pairs, self.space.hidden, self._teacher_shape.hidden, divisors).to(self.net.device)

    @property
    def fits_projections(self) -> bool:
        """Whether the objective has linear maps that can be fitted before a member is scored."""
        return self._relations is None

    def targets(self, inputs: Inputs) -> Targets:
        """What the teacher says about a batch, for all members."""
        if self._relations is None:
            return self._states(*inputs)
        with torch.inference_mode():
            vectors: Targets = self._views[0](*inputs)
        return vectors

    def states(self, arch: Arch, inputs: Inputs) -> tuple[Tensor, ...]:
        """L_S + 1 states (B, T, D) of a member, embedding output first."""
        return self._member(arch).run(*inputs)[0]

    def forward(self, arch: Arch, inputs: Inputs, targets: Targets, loss: HiddenStateLoss | None = None) -> Tensor:
        """Loss of each part, (n_parts,): of each pair of layers, or of each relation.

        Args:
            arch: the member.
            inputs: the batch.
            targets: from `targets`.
            loss: linear maps of this member alone; by default those of its depth.
        """
        if self._relations is None:
            pairs: Any = loss if loss is not None else self.losses[str(arch.layers)]
            losses: Tensor = pairs(self.states(arch, inputs), targets, inputs[1])
            return losses
        _, ours = self._member(arch).run(*inputs, relations=True)
        return self._relations.losses(dict(targets), ours, inputs[1])

    def _member(self, arch: Arch) -> Member:
        if arch not in self._members:
            self._members[arch] = Member(self.net, self.space, arch, self._options.dropout)
        member = self._members[arch]
        member.encoder.train(self._options.dropout and self.training)
        return member


def wanted_layers(space: SubSpace, teacher_layers: int, options: FamilyOptions) -> list[int]:
    """Teacher layers, 1-based, that some member learns from."""
    mapping = LayerMapping(options.mapping)
    return sorted({layer for depth in space.layers for _, layer in layer_pairs(depth, teacher_layers, mapping)})


def relations_of(space: SubSpace, teacher_hidden: int, teacher_layers: int, options: FamilyOptions) -> Relations:
    """The relations that a sub-space learns.

    Raises:
        UsageError: the relation heads do not divide the widths, or the teacher has no such layer.
    """
    return Relations(
        resolve_teacher_layer(options.teacher_layer, teacher_layers),
        resolve_relation_heads(options.relation_heads, space.hidden, teacher_hidden),
        options.relations,
    )
