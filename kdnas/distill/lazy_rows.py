"""AdamW of an embedding table that reads and writes only the rows of a batch, with the result of AdamW on all rows.

A row without a gradient still moves under AdamW: weight decay shrinks it, and its first moment fades over tens of steps. Both are
known in advance. From step s, in which the row had its last gradient, to step t,

    p_t = kept(s, t) p_s - moved(s, t) m_s / (sqrt(v_s) + epsilon),
    kept(s, t) = product over j = s+1..t of (1 - lr_j decay),
    moved(s, t) = sum over j of lr_j c_j r^(j-s) kept(j, t),  r = beta1 / sqrt(beta2),  c_j = sqrt(1 - beta2^j) / (1 - beta1^j).

kept and moved do not depend on the row, so one number per step is enough, and a row is brought up to date when it is looked up.
The only difference from AdamW on all rows is epsilon, which does not grow relative to the fading second moment; it matters where
gradients are near epsilon (1e-8). With 250,000 rows AdamW on all of them takes a large part of a step
(`tests/bench/multilingual_step.py`).
"""

from typing import Any

import torch
from torch import Tensor, nn

LAZY = "lazy_rows"  # attribute of a table whose rows are updated only when a batch uses them
WINDOW = 512  # steps until a first moment no longer moves its row: r^512 is below 1e-20
CHUNK = 65_536  # rows brought up to date at once
Rows = tuple[Tensor, Tensor, Tensor]  # weights and both moments, each (N, D)


class LazyRows:
    """Moments of one table, and for each row the step up to which its weights are current.

    The state is in `optimizer.state`, so checkpoints include it. Only `update` and `settle` write; lookups compute the current
    values from the stored ones. A checkpoint or a validation therefore does not change the rounding of later steps.

    Args:
        table: (V, D) weights of the table.
        optimizer: AdamW whose groups contain the table; gives betas, epsilon and weight decay.
    """

    def __init__(self, table: nn.Parameter, optimizer: torch.optim.AdamW) -> None:
        self._table, self._optimizer = table, optimizer
        self._group = next(group for group in optimizer.param_groups if any(one is table for one in group["params"]))

    @property
    def _state(self) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self._optimizer.state[self._table]
        if not state:
            table = self._table.detach()
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(table), torch.zeros_like(table)
            state["current"] = torch.zeros(len(table), dtype=torch.int32, device=table.device)
            state["kept"] = torch.ones(1, dtype=torch.float64, device=table.device)
            state["moved"] = torch.zeros(1, dtype=torch.float64, device=table.device)
        return state

    def values(self, ids: Tensor) -> Tensor:
        """Current weights (..., D) of the rows with these ids (...)."""
        return self._now(ids.flatten())[0].view(*ids.shape, -1)

    @torch.no_grad()
    def _now(self, ids: Tensor) -> Rows:
        """Weights and moments of these rows (N,) as AdamW on all rows would have them now."""
        state, group = self._state, self._group
        since = state["current"].index_select(0, ids).long()
        passed = (len(state["kept"]) - 1 - since).double()[:, None]
        kept, moved = (state[name][since].to(self._table.dtype)[:, None] for name in ("kept", "moved"))
        weights, first, second = (
            one.index_select(0, ids) for one in (self._table, state["exp_avg"], state["exp_avg_sq"])
        )
        weights = weights.mul_(kept).sub_(moved * first / (second.sqrt() + group["eps"]))
        for moment, beta in zip((first, second), group["betas"], strict=True):
            moment.mul_((beta**passed).to(moment.dtype))
        return weights, first, second

    @torch.no_grad()
    def update(self, rows: Tensor, gradients: Tensor, scale: Tensor) -> None:
        """One AdamW step with the learning rate of the table's group.

        Args:
            rows: (N,) different ids.
            gradients: (N, D) their gradients; the other rows have none.
            scale: (), divides the gradients.
        """
        state, group = self._state, self._group
        step, lr, (beta1, beta2) = len(state["kept"]), float(group["lr"]), group["betas"]
        shrink = 1 - lr * group["weight_decay"]
        gradients = gradients / scale
        weights, first, second = self._now(rows)
        first.lerp_(gradients, 1 - beta1)
        second.mul_(beta2).addcmul_(gradients, gradients, value=1 - beta2)
        size = lr / (1 - beta1**step)
        weights.mul_(shrink).sub_(size * first / (second.sqrt() / (1 - beta2**step) ** 0.5 + group["eps"]))
        self._write(rows, (weights, first, second))
        state["current"][rows] = step
        self._count(step, lr, shrink)

    def _count(self, step: int, lr: float, shrink: float) -> None:
        """Add a step to `kept` and `moved`, for the rows whose last step was each of the earlier ones."""
        state, (beta1, beta2) = self._state, self._group["betas"]
        kept, moved = state["kept"] * shrink, state["moved"] * shrink
        near = torch.arange(max(0, step - WINDOW), step, device=moved.device)
        fading = (beta1 / beta2**0.5) ** (step - near).double()
        moved[near] += lr * (1 - beta2**step) ** 0.5 / (1 - beta1**step) * fading
        state["kept"] = torch.cat([kept, kept.new_ones(1)])
        state["moved"] = torch.cat([moved, moved.new_zeros(1)])

    def _write(self, rows: Tensor, values: Rows) -> None:
        state = self._state
        for target, value in zip((self._table, state["exp_avg"], state["exp_avg_sq"]), values, strict=True):
            target.index_copy_(0, rows, value)

    @torch.no_grad()
    def settle(self) -> None:
        """Bring all rows up to date."""
        step = len(self._state["kept"]) - 1
        for rows in torch.arange(len(self._table), device=self._table.device).split(CHUNK):
            self._write(rows, self._now(rows))
            self._state["current"][rows] = step


def lazy_rows_of(table: Any) -> LazyRows | None:
    """The lazy updates of a table; None if the optimizer updates all its rows."""
    return getattr(table, LAZY, None)
