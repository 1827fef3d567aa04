"""Members of a family as views of the tensors of one net, without elastic modules.

The net is a stock model of the largest shape. `sliced` gives the tensors of a member, and `torch.func.functional_call` runs them
on a stock model of the member's shape, which has no memory for its layers.
"""

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers import PretrainedConfig, PreTrainedModel

from kdnas.autodistil.cutting import sliced
from kdnas.autodistil.sub_space import SubSpace
from kdnas.distill.hidden_state import student_states
from kdnas.distill.moments import Moments
from kdnas.distill.relation import Vectors, queries_keys_values
from kdnas.models.arch import Arch
from kdnas.models.family import family_of, shape_of
from kdnas.models.student import new_encoder, student_config


def skeleton(arch: Arch, config: PretrainedConfig) -> PreTrainedModel:
    """A stock model of a member's shape whose tensors have no memory; `config` is the net's."""
    with torch.device("meta"):
        return new_encoder(student_config(arch, config)).eval()


class Member(nn.Module):
    """Runs one member on the current tensors of a net.

    Args:
        net: stock model of the shape `space.largest`.
        space: the members of the net.
        arch: the member.
        dropout: whether the member runs with dropout.
    """

    def __init__(self, net: PreTrainedModel, space: SubSpace, arch: Arch, dropout: bool = False) -> None:
        super().__init__()
        self.encoder = skeleton(arch, net.config)
        self.encoder.embeddings = net.embeddings  # shared: its table may be cut to the rows of a corpus
        self.encoder.train(dropout)
        self.arch, self._space = arch, space
        self._net = (net,)  # in a tuple: not a submodule

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None, relations: bool = False
    ) -> tuple[tuple[Tensor, ...], Vectors]:
        """States and, if wanted, the last layer's queries, keys and values; arguments as `Objective.forward`."""
        states = student_states(self.encoder, input_ids, attention_mask, token_type_ids)
        return states, queries_keys_values(self.encoder, self.arch.layers, states[-2]) if relations else {}

    def run(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None, relations: bool = False
    ) -> tuple[tuple[Tensor, ...], Vectors]:
        """`forward` with the member's slices of the net's tensors: L_S + 1 states (B, T, D), embedding output first.

        Args:
            input_ids: (B, T).
            attention_mask: (B, T), 1 at real tokens.
            token_type_ids: (B, T) for pairs of texts.
            relations: whether queries, keys and values of the last layer, each (B, T, D), are wanted.
        """
        net = self._net[0]
        tensors = sliced(dict(net.named_parameters()) | dict(net.named_buffers()), self._space, self.arch)
        named = {f"encoder.{name}": tensor for name, tensor in tensors.items()}
        arguments = (input_ids, attention_mask, token_type_ids, relations)
        found: tuple[tuple[Tensor, ...], Vectors] = functional_call(self, named, arguments, strict=True)
        return found


@torch.no_grad()
def order_neurons(net: PreTrainedModel, moments: Moments) -> None:
    """Order the neurons of each layer by their output: its root mean square times the norm of the map that reads it.

    The function of the net does not change. Members with fewer neurons get the first ones.

    Args:
        net: stock model.
        moments: moments of the neurons of all its layers, from `kdnas.distill.moments.second_moments`.
    """
    family = family_of(net.config)
    for number in range(1, shape_of(net.config).layers + 1):
        layer = family.layer(net, number)
        size = moments.neurons[number].diagonal()[:-1].sqrt().to(layer.contract.weight.device)
        order = torch.argsort(size * layer.contract.weight.norm(dim=0), descending=True, stable=True)
        layer.expand.weight.copy_(layer.expand.weight[order])
        layer.expand.bias.copy_(layer.expand.bias[order])
        layer.contract.weight.copy_(layer.contract.weight[:, order])
