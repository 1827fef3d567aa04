"""Updates with clipped gradients against torch's separate steps, with embedding tables that have some rows with gradients."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from kdnas.distill.fast_training import FastTraining
from kdnas.distill.loop import make_optimizer
from kdnas.distill.updates import CLIP_NORM, rows_of, update

Loss = Callable[[nn.Module, Tensor], Tensor]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(50, 6, padding_idx=1)
        self.linear = nn.Linear(6, 6)

    def forward(self, ids: Tensor) -> Tensor:
        return self.linear(self.table(ids))


def own_part(net: nn.Module, ids: Tensor) -> Tensor:
    return 30 * net(ids).square().sum()


def tied(net: nn.Module, ids: Tensor) -> Tensor:
    return (net(ids) @ net.table.weight.T).square().sum()  # type: ignore[operator, union-attr]


@pytest.mark.parametrize("loss", [own_part, tied])
@pytest.mark.parametrize("size", [1e-4, 1.0])  # gradient norm below and above the clipping norm
def test_updates_equal_those_of_torch(loss: Loss, size: float) -> None:
    ours, theirs = Net(), Net()
    optimizer, reference = make_optimizer(ours, 1e-3), make_optimizer(theirs, 1e-3)
    for step in range(5):
        ids = torch.randint(0, 50, (3, 4), generator=torch.Generator().manual_seed(step))
        with FastTraining():
            (size * loss(ours, ids)).backward()
        norm = update(optimizer, 1e-2)
        (size * loss(theirs, ids)).backward()
        before = nn.utils.clip_grad_norm_(theirs.parameters(), CLIP_NORM)
        for group in reference.param_groups:
            group["lr"] = 1e-2
        reference.step()
        reference.zero_grad()
        torch.testing.assert_close(norm, before)
        assert (before > CLIP_NORM) == (size == 1)
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(one, other)
            assert one.grad is not None
            assert not one.grad.any()


def test_embedding_tables_have_a_separate_learning_rate() -> None:
    ids = torch.tensor([[3, 4], [5, 3]])
    moved = {}
    for factor in (1.0, 0.5):
        net = Net()
        before = {name: one.detach().clone() for name, one in net.named_parameters()}
        optimizer = make_optimizer(net, 1e-3, 0.0, factor)
        tied(net, ids).backward()
        update(optimizer, 1e-2)
        moved[factor] = {name: one.detach() - before[name] for name, one in net.named_parameters()}
    for name, change in moved[1.0].items():
        torch.testing.assert_close(moved[0.5][name], change * (0.5 if name.startswith("table") else 1.0))
        assert change.any() or name != "table.weight"


def test_rows_of_a_discarded_batch_are_not_updated() -> None:
    net = Net()
    optimizer = make_optimizer(net, 1e-3)
    with FastTraining():
        own_part(net, torch.tensor([[3, 4]])).backward()
    optimizer.zero_grad(set_to_none=True)
    with FastTraining():
        own_part(net, torch.tensor([[7]])).backward()
    before = net.table.weight.detach().clone()
    update(optimizer, 1e-2)
    moved = (net.table.weight != before * (1 - 1e-2 * 0.01)).any(1).nonzero().flatten()
    assert moved.tolist() == [7]


def test_rows_are_known_unless_the_table_has_a_gradient_from_elsewhere() -> None:
    """torch calls the hooks of a table after the in-place addition, too."""
    net = Net()
    optimizer = make_optimizer(net, 1e-3)
    for loss, rows in ((own_part, [3, 4]), (tied, None), (own_part, [3, 4])):
        with FastTraining():
            loss(net, torch.tensor([[3, 4], [4, 3]])).backward()
        found = rows_of(net.table.weight)
        assert (None if found is None else found.tolist()) == rows
        update(optimizer, 1e-2)
