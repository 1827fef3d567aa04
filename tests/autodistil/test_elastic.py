"""The optimizer of a net: parts that no member of an update has do not move, and trained parts move as in a copy."""

import pytest
import torch
from torch import nn

from kdnas.autodistil.cutting import sliced
from kdnas.autodistil.elastic import ElasticParameters
from kdnas.autodistil.slices import Member
from kdnas.autodistil.sub_space import SubSpace
from kdnas.distill.checkpoint import Position, load_checkpoint, save_checkpoint
from kdnas.distill.loop import make_optimizer
from kdnas.distill.updates import update
from kdnas.models.arch import Arch

from .family_nets import extracted, tiny_batch, tiny_net, tiny_space

LR = 1e-2


def step(net, space: SubSpace, elastic: ElasticParameters, optimizer, archs: list[Arch]) -> None:  # type: ignore[no-untyped-def]
    """One update on the squared states of some members."""
    for arch in archs:
        states, _ = Member(net, space, arch).run(*tiny_batch())
        torch.stack([(state - 1).square().mean() for state in states]).sum().backward()
    assert torch.isfinite(elastic.update(optimizer, archs, LR))


def test_inactive_slices_do_not_move_by_momentum_or_decay() -> None:
    space = tiny_space()
    net = tiny_net(space)
    elastic = ElasticParameters(net, space, nn.ModuleDict())
    optimizer = make_optimizer(elastic, LR, weight_decay=0.5)
    for _ in range(3):
        step(net, space, elastic, optimizer, [space.largest])  # everything has momentum now
    before = {name: value.detach().clone() for name, value in net.named_parameters()}
    moments = {name: optimizer.state[one]["exp_avg"].clone() for name, one in elastic.own.items()}
    small = Arch(3, 2, 48, 8)
    for _ in range(3):
        step(net, space, elastic, optimizer, [small])
    now = dict(net.named_parameters())
    active = sliced({name: torch.ones_like(value) for name, value in before.items()}, space, small)
    masks = {name: torch.zeros_like(value) for name, value in before.items()}
    for name, view in sliced(masks, space, small).items():
        view += active[name]
    for name, mask in masks.items():
        assert torch.equal(now[name][mask == 0], before[name][mask == 0]), name
        if name.startswith("encoder") and bool(mask.any()):
            assert not torch.equal(now[name][mask == 1], before[name][mask == 1]), name
    kept = space.kept(3)
    for key, value in moments.items():
        number, first = int(key.split("/")[0]), key.rpartition("/")[2]
        if number not in kept or (first.isdigit() and int(first) >= 8):
            assert torch.equal(optimizer.state[elastic.own[key]]["exp_avg"], value), key


def test_a_member_trained_alone_equals_a_copy_trained_alone() -> None:
    space, arch = tiny_space(), Arch(3, 3, 48, 40)
    net = tiny_net(space)
    elastic = ElasticParameters(net, space, nn.ModuleDict())
    optimizer = make_optimizer(elastic, LR)
    alone = SubSpace("alone", "bert", (3,), (3,), 48, (40,))
    copy = extracted(net.state_dict(), net.config, space, arch)
    for name, buffer in net.named_buffers():
        module, _, last = name.rpartition(".")
        copy.get_submodule(module).register_buffer(last, buffer, persistent=False)
    other = make_optimizer(copy, LR)
    for _ in range(4):
        step(net, space, elastic, optimizer, [arch])
        states, _ = Member(copy, alone, arch).run(*tiny_batch())
        torch.stack([(state - 1).square().mean() for state in states]).sum().backward()
        update(other, LR)
    for name, value in sliced(dict(net.named_parameters()), space, arch).items():
        if not name.endswith("key.bias"):  # its gradient is rounding only, because softmax ignores a constant
            torch.testing.assert_close(value, copy.get_parameter(name), atol=1e-5, rtol=1e-4)


def test_a_checkpoint_restores_net_and_moments(tmp_path) -> None:  # type: ignore[no-untyped-def]
    space = tiny_space()
    net = tiny_net(space)
    elastic = ElasticParameters(net, space, nn.ModuleDict())
    optimizer = make_optimizer(elastic, LR)
    step(net, space, elastic, optimizer, [space.largest, space.smallest])
    save_checkpoint(tmp_path, elastic, optimizer, Position(step=1))
    fresh = tiny_net(space)
    again = ElasticParameters(fresh, space, nn.ModuleDict())
    later = make_optimizer(again, LR)
    assert load_checkpoint(tmp_path, again, later) == Position(step=1)
    again.restored()
    for one, parts, how in ((net, elastic, optimizer), (fresh, again, later)):
        step(one, space, parts, how, [space.smallest])
    for name, value in net.named_parameters():
        assert torch.equal(value, fresh.get_parameter(name)), name


@pytest.mark.parametrize("archs", [["1,2,48,8,gelu"], ["5,6,48,96,gelu", "1,2,48,8,gelu"]])
def test_gradients_are_cleared(archs: list[str]) -> None:
    space = tiny_space()
    net = tiny_net(space)
    elastic = ElasticParameters(net, space, nn.ModuleDict())
    step(net, space, elastic, make_optimizer(elastic, LR), [Arch.parse(arch) for arch in archs])
    assert all(value.grad is None or not bool(value.grad.any()) for value in net.parameters())
