"""A search whose evaluator is known: its episodes, its baselines and its results."""

from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from kdnas.errors import KdnasError
from kdnas.models.arch import Arch
from kdnas.models.table import LatencyTable
from kdnas.search import baselines, journal
from kdnas.search.explore import explore
from kdnas.search.goal import Goal
from kdnas.search.journal import Candidate
from kdnas.search.options import SearchOptions
from kdnas.search.outcome import EvaluateAll
from kdnas.search.pareto import hypervolume, pareto_front
from kdnas.search.strategies import make_strategy
from kdnas.store.progress import say


def explored(
    path: Path,
    evaluate_all: EvaluateAll,
    goal: Goal,
    options: SearchOptions,
    table: LatencyTable,
    shapes: Mapping[str, Arch],
) -> dict[str, Any]:
    strategy = make_strategy(goal, options)
    candidates = explore(path / journal.FILE, strategy, evaluate_all, goal, options)
    results = summary(candidates, goal) | {"episodes": options.episodes, "strategy": options.strategy}
    if shapes:
        file = path / baselines.FILE
        results["baselines"] = baselines.measure_baselines(file, shapes, evaluate_all, candidates, table, options)
    return results


def summary(candidates: list[Candidate], goal: Goal) -> dict[str, Any]:
    """Results of a finished search; warns if the winner is slower than its teacher.

    Raises:
        KdnasError: every candidate failed.
    """
    winner = journal.best(candidates)
    if winner is None:
        raise KdnasError(
            f"search: all {len(candidates)} candidates failed, the first with '{candidates[0].failed}'; "
            "try a lower --proxy.peak_lr"
        )
    if winner.latency_ms > goal.teacher_latency_ms:
        say(
            f"search: the winner, {winner.arch}, takes {winner.latency_ms:.3g} ms, its teacher {goal.teacher_latency_ms:.3g}: "
            "how much latency counts depends on the scale of the loss; to limit it, use for example --max_latency_fraction 0.5"
        )
    finished = [candidate for candidate in candidates if candidate.loss is not None]
    points = [goal.point(candidate.arch, candidate.loss or 0.0) for candidate in finished]
    front = pareto_front(points if goal.front else [point[:2] for point in points])
    return {
        "winner": str(winner.arch),
        "winner_reward": winner.reward,
        "candidates": len(candidates),
        "failed": sum(candidate.failed is not None for candidate in candidates),
        "tokens": sum(candidate.tokens for candidate in candidates),
        "space_size": len(goal.latencies),
        "teacher_latency_ms": goal.teacher_latency_ms,
        "hypervolume": hypervolume(points, goal.worst),
        "pareto": [
            {
                "arch": str(one.arch),
                "loss": one.loss,
                "latency_ms": one.latency_ms,
                "megabytes": goal.megabytes.get(one.arch),
                "reward": one.reward,
            }
            for one in (finished[index] for index in front)
        ],
        "seconds_per_candidate": round(mean(candidate.seconds for candidate in candidates), 3),
    }
