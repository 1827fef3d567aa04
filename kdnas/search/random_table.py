"""The format of the paper's Table 3: random architectures and the ones that a search recommends."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kdnas.models.arch import Arch
from kdnas.search.goal import Goal

SEEDS, EACH = 3, 3


def random_and_recommended(goal: Goal, losses: Mapping[Arch, float], proposed: Sequence[Arch]) -> list[dict[str, Any]]:
    """Three random architectures for each of three seeds, and the three with the best rewards that a search proposed.

    Args:
        goal: latencies and reward.
        losses: recorded losses.
        proposed: architectures that the search proposed.

    Returns:
        Rows of name, arch, loss, latency_ms, reward; recommended ones last, best first.
    """
    states = sorted(losses)
    named = []
    for seed in range(SEEDS):
        indices = np.random.default_rng(seed).choice(len(states), min(EACH, len(states)), replace=False)
        named += [(f"random, seed {seed}", states[int(index)]) for index in indices]
    best = sorted(proposed, key=lambda arch: -goal.reward(arch, losses[arch]))[:EACH]
    named += [("recommended", arch) for arch in best]
    return [
        {
            "name": name,
            "arch": str(arch),
            "loss": losses[arch],
            "latency_ms": goal.latencies[arch],
            "reward": goal.reward(arch, losses[arch]),
        }
        for name, arch in named
    ]
