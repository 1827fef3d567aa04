"""Time of each strategy to propose 15 episodes of 20 among all 2400 architectures, with synthetic losses.

Run as `python tests/bench/search_scoring.py [STRATEGY ...]`. Prints a row per strategy: median and largest seconds of `ask` for
an episode, which scores all remaining architectures, and of `tell`.
"""

import sys
import time
from dataclasses import replace
from statistics import median
from typing import Any, cast

from kdnas.models.arch import Arch, SearchSpace
from kdnas.search.goal import Goal
from kdnas.search.options import SearchOptions
from kdnas.search.strategies import Observation, make_strategy
from kdnas.store.host import host_line

EPISODES, CANDIDATES = 15, 20
TEACHER = Arch(12, 12, 768, 3072)


def loss(arch: Arch) -> float:
    """Synthetic loss that falls with the size, as real losses do."""
    return float(0.6 * (arch.layer_parameters / 2e6) ** -0.2)


def main(names: list[str]) -> None:
    latencies = {arch: 0.3 + arch.flops(24) / 6e8 for arch in SearchSpace()}
    goal = Goal(latencies, latencies[TEACHER], SearchOptions.alpha, SearchOptions.beta, teacher=TEACHER)
    print(host_line())
    for name in names:
        strategy, asked, told = make_strategy(goal, replace(SearchOptions(), strategy=cast(Any, name))), [], []
        for _ in range(EPISODES):
            start = time.perf_counter()
            archs = [proposal.arch for proposal in strategy.ask(CANDIDATES)]
            asked.append(time.perf_counter() - start)
            results = [Observation(arch, goal.reward(arch, loss(arch)), loss(arch)) for arch in archs]
            start = time.perf_counter()
            strategy.tell(results)
            told.append(time.perf_counter() - start)
        print(
            f"{name}: ask {median(asked):.3f} s, at most {max(asked):.3f}; tell {median(told):.3f} s, at most {max(told):.3f}"
        )


if __name__ == "__main__":
    main(sys.argv[1:] or ["kdnas", "surrogate", "random", "evolution", "tpe", "nsga2"])
