"""Slices of a net against stock models of the members' shapes: values, gradients, order of neurons."""

from pathlib import Path

import pytest
import torch
from torch.func import functional_call
from transformers import AutoModel

from kdnas.autodistil.cutting import sliced
from kdnas.autodistil.options import FamilyOptions
from kdnas.autodistil.schedule import members
from kdnas.autodistil.slices import Member, order_neurons, skeleton
from kdnas.distill.moments import second_moments
from kdnas.errors import UsageError
from kdnas.models.arch import Arch

from .family_nets import TYPES, extracted, tiny_batch, tiny_net, tiny_space


@pytest.mark.slow
@pytest.mark.parametrize("model_type", TYPES)
def test_every_member_equals_its_stock_model_bit_for_bit(model_type: str, tmp_path: Path) -> None:
    space = tiny_space(model_type)
    net, (ids, mask) = tiny_net(space), tiny_batch()
    tensors = dict(net.named_parameters()) | dict(net.named_buffers())
    for arch in space.members:
        folder = tmp_path / arch.name
        extracted(net.state_dict(), net.config, space, arch).save_pretrained(folder)
        stock = AutoModel.from_pretrained(folder, add_pooling_layer=False).eval()
        options = {"input_ids": ids, "attention_mask": mask, "output_hidden_states": True}
        with torch.no_grad():
            expected = stock(**options).hidden_states
            found = functional_call(
                skeleton(arch, net.config), sliced(tensors, space, arch), kwargs=options, strict=True
            )
            states, _ = Member(net, space, arch).run(ids, mask)
        assert len(expected) == arch.layers + 1
        for one, other, third in zip(expected, found.hidden_states, states, strict=True):
            assert torch.equal(one, other)
            assert torch.equal(one, third)


def test_slices_are_views() -> None:
    space = tiny_space()
    net = tiny_net(space)
    tensors = dict(net.named_parameters())
    found = sliced(tensors, space, space.smallest)
    pointers = {tensor.untyped_storage().data_ptr() for tensor in tensors.values()}
    assert {tensor.untyped_storage().data_ptr() for tensor in found.values()} <= pointers
    with pytest.raises(UsageError, match="is not in the family"):
        sliced(tensors, space, Arch(2, 2, 48, 8))


def test_the_net_with_ordered_neurons_is_the_same_function() -> None:
    space = tiny_space()
    net, (ids, mask) = tiny_net(space), tiny_batch()
    layers = list(range(1, 6))
    with torch.no_grad():
        before = net(input_ids=ids, attention_mask=mask).last_hidden_state
        order_neurons(net, second_moments(net, [(ids, mask)], layers))
        after = net(input_ids=ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(after, before, atol=1e-5, rtol=0)
    moments = second_moments(net, [(ids, mask)], layers)
    for number in layers:
        sizes = moments.neurons[number].diagonal()[:-1].sqrt() * net.encoder.layer[number - 1].output.dense.weight.norm(
            dim=0
        )
        assert bool((sizes.diff() <= 1e-5).all())


SANDWICH = FamilyOptions(member_schedule="sandwich")


@pytest.mark.parametrize(
    "archs",
    [
        [Arch(3, 6, 48, 40), Arch(1, 2, 48, 8), Arch(3, 3, 48, 8)],  # without the largest: most of the net is inactive
        members(tiny_space(), SANDWICH, 0),
        members(tiny_space(), SANDWICH, 5),
    ],
    ids=["three small members", "sandwich of update 0", "sandwich of update 5"],
)
def test_summed_gradients_equal_those_of_copies_and_are_zero_elsewhere(archs: list[Arch]) -> None:
    space = tiny_space()
    net, (ids, mask) = tiny_net(space).double(), tiny_batch()
    for arch in archs:
        states, _ = Member(net, space, arch).run(ids, mask)
        torch.stack([state.square().mean() for state in states]).sum().backward()
    expected = {name: torch.zeros_like(parameter) for name, parameter in net.named_parameters()}
    touched = {name: torch.zeros_like(parameter, dtype=torch.bool) for name, parameter in net.named_parameters()}
    for arch in archs:
        copy = tiny_net(space).double()
        views = {
            name: value.detach().clone().requires_grad_()
            for name, value in sliced(dict(copy.named_parameters()), space, arch).items()
        }
        stock = functional_call(
            skeleton(arch, net.config),
            views | dict(copy.named_buffers()),
            kwargs={"input_ids": ids, "attention_mask": mask, "output_hidden_states": True},
        )
        torch.stack([state.square().mean() for state in stock.hidden_states]).sum().backward()
        for name, part in sliced(expected, space, arch).items():
            part += views[name].grad
        for part in sliced(touched, space, arch).values():
            part |= True
    for name, parameter in net.named_parameters():
        found = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(found, expected[name], atol=1e-10, rtol=0)
        assert not bool(found[~touched[name]].any()), name
    inactive = sum(int((~part).sum()) for part in touched.values())
    assert (inactive > 0) == (space.largest not in archs)
