"""Lazy updates of an embedding table against AdamW on all of its rows."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from kdnas.distill.lazy_rows import LazyRows

ROWS, WIDTH = 12, 3
ONE = torch.ones(())
Steps = list[tuple[list[int], float]]  # rows with gradients, and learning rate, of each step


def lazy_table(weight_decay: float) -> tuple[nn.Parameter, LazyRows, torch.optim.AdamW]:
    table = nn.Parameter(torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(0)))
    optimizer = torch.optim.AdamW([table], betas=(0.9, 0.98), weight_decay=weight_decay)
    return table, LazyRows(table, optimizer), optimizer


def gradient_of(step: int, rows: list[int]) -> Tensor:
    found = torch.zeros(ROWS, WIDTH)
    found[rows] = torch.randn(len(rows), WIDTH, generator=torch.Generator().manual_seed(step))
    return found


def lazily(steps: Steps, weight_decay: float, scale: Tensor = ONE) -> tuple[nn.Parameter, LazyRows]:
    table, lazy, optimizer = lazy_table(weight_decay)
    for number, (rows, lr) in enumerate(steps):
        optimizer.param_groups[0]["lr"] = lr
        lazy.update(torch.tensor(rows), gradient_of(number, rows)[rows], scale)
    return table, lazy


def on_all_rows(steps: Steps, weight_decay: float, scale: float = 1.0) -> Tensor:
    table, _, optimizer = lazy_table(weight_decay)
    for number, (rows, lr) in enumerate(steps):
        optimizer.param_groups[0]["lr"] = lr
        table.grad = gradient_of(number, rows) / scale
        optimizer.step()
    return table.detach()


used = st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=4, unique=True)


@given(st.lists(st.tuples(used, st.floats(0, 0.1)), min_size=1, max_size=60), st.floats(0, 1), st.floats(1, 9))
def test_rows_equal_those_of_adamw_on_all_rows(steps: Steps, weight_decay: float, scale: float) -> None:
    table, lazy = lazily(steps, weight_decay, torch.tensor(scale))
    expected = on_all_rows(steps, weight_decay, scale)
    torch.testing.assert_close(lazy.values(torch.arange(ROWS)), expected, atol=2e-5, rtol=2e-5)
    lazy.settle()
    torch.testing.assert_close(table.detach(), expected, atol=2e-5, rtol=2e-5)


def test_a_row_that_pauses_for_longer_than_the_window_equals_adamw_on_all_rows() -> None:
    steps = [([0, 1], 0.01)] + [([1 + number % 11], 0.01 - number * 1e-5) for number in range(700)] + [([0], 0.01)] * 3
    _, lazy = lazily(steps, 0.1)
    torch.testing.assert_close(lazy.values(torch.arange(ROWS)), on_all_rows(steps, 0.1), atol=1e-4, rtol=1e-4)


def test_a_row_without_gradients_only_decays() -> None:
    steps: Steps = [([0, 1], 0.1), ([1], 0.05), ([0], 0.2)]
    start = lazy_table(0.0)[0].detach()
    table, lazy = lazily(steps, 0.0)
    lazy.settle()
    assert torch.equal(table[2:], start[2:])
    assert not torch.isclose(table[:2], start[:2]).any()
    table, lazy = lazily(steps, 0.5)
    lazy.settle()
    torch.testing.assert_close(table.detach()[2:], start[2:] * (1 - 0.05) * (1 - 0.025) * (1 - 0.1))


def test_a_row_keeps_moving_after_its_gradient() -> None:
    """As under AdamW on all rows: the first moment fades over the following steps."""
    _, alone = lazily([([0], 0.01)], 0.0)
    _, later = lazily([([0], 0.01)] + [([1], 0.01)] * 40, 0.0)
    start = lazy_table(0.0)[0][0].detach()
    first, all_in_all = (lazy.values(torch.tensor([0]))[0] - start for lazy in (alone, later))
    assert (all_in_all / first > 3).all()


def test_only_the_rows_of_a_batch_are_written() -> None:
    steps: Steps = [([0, 1, 2], 0.1), ([3], 0.1)]
    table, lazy, optimizer = lazy_table(0.3)
    optimizer.param_groups[0]["lr"] = 0.1
    for number, (rows, _) in enumerate(steps):
        before = table.detach().clone()
        lazy.update(torch.tensor(rows), gradient_of(number, rows)[rows], ONE)
        assert (table != before).any(1).nonzero().flatten().tolist() == rows


def test_a_lookup_changes_nothing() -> None:
    table, lazy = lazily([([0, 1], 0.1), ([1], 0.1), ([2], 0.1)], 0.1)
    before = [table.detach().clone(), *(one.clone() for one in lazy._state.values())]
    ids = torch.tensor([[0, 1], [0, 5]])
    assert lazy.values(ids).shape == (2, 2, WIDTH)
    assert torch.equal(lazy.values(ids), lazy.values(ids))
    assert all(map(torch.equal, before, [table.detach(), *lazy._state.values()]))


def test_an_id_outside_the_table_is_an_error() -> None:
    _, lazy, _ = lazy_table(0.0)
    with pytest.raises((IndexError, RuntimeError)):
        lazy.values(torch.tensor([-1]))
