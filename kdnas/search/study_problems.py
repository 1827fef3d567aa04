"""The problems of a study: the architectures within random limits of latency, and a run of a strategy among them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from kdnas.errors import UsageError
from kdnas.models.arch import Arch, arch_from_id
from kdnas.search.comparison_options import ComparisonOptions
from kdnas.search.curves import EXACT, best_reward, best_volume, rewards_and_volumes
from kdnas.search.goal import Goal
from kdnas.search.limits import make_goal
from kdnas.search.options import SearchOptions
from kdnas.search.replay_run import run_once
from kdnas.search.replays import Replay
from kdnas.search.study_cells import GRID

LOWEST, HIGHEST = 5, 80  # percentiles of the recorded latencies between which the limits are drawn


@dataclass(frozen=True)
class Problem:
    """The architectures within one limit, and the schedule of a run among them.

    Args:
        limit_ms: largest latency.
        goal: architectures and reward; its `teacher` is the hint.
        losses: recorded losses.
        evaluations: evaluations of the schedule; a run has fewer if there are fewer architectures.
        per_episode: architectures per episode.
    """

    limit_ms: float
    goal: Goal
    losses: dict[Arch, float]
    evaluations: int
    per_episode: int

    @cached_property
    def best(self) -> tuple[float, float]:
        """Best reward and hypervolume of all architectures."""
        return best_reward(self.goal, self.losses), best_volume(self.goal, self.losses)


def random_limits(latencies: Sequence[float], count: int, seed: int, index: int) -> list[float]:
    """Limits in ms, uniform between two percentiles of the latencies; others for each recording.

    Args:
        latencies: of the recorded architectures, in ms.
        count: number of limits.
        seed: seed of all limits.
        index: number of the recording.
    """
    low, high = np.percentile(latencies, (LOWEST, HIGHEST))
    return [float(limit) for limit in np.random.default_rng([seed, index]).uniform(low, high, count)]


def schedule(options: ComparisonOptions, recorded: int, space: int) -> tuple[int, int]:
    """Evaluations of a run and architectures per episode.

    Args:
        options: the published schedule.
        recorded: number of recorded architectures.
        space: number of architectures of the space. A recording of a fraction of it gets this fraction of the evaluations, if
            `scale_schedule` is set: a search among fewer architectures is easier.
    """
    fraction = recorded / space if options.scale_schedule else 1.0
    evaluations = max(1, round(options.episodes * options.candidates_per_episode * fraction))
    return evaluations, max(1, round(options.candidates_per_episode * fraction))


def make_problems(replay: Replay, options: ComparisonOptions, index: int) -> list[Problem]:
    """The problem within each limit of a recording.

    Raises:
        UsageError: the shape of the teacher is unknown, or no architecture within a limit is worth anything.
    """
    if replay.shape is None:
        raise UsageError(
            f"recording of {replay.name}: the shape of its teacher is unknown, and so is the hint: give its --teacher"
        )
    states = replay.states(options.without_teacher_shape, options.only_random)
    evaluations, per_episode = schedule(options, len(replay.recording.within(replay.space)), len(replay.space))
    latencies = [replay.table.latency_ms(arch) for arch in states]
    problems = []
    for limit_ms in random_limits(latencies, options.limits, options.limits_seed, index):
        limited = replace(options.search(options.strategies[0], 0), max_latency_ms=limit_ms)
        goal = replace(make_goal(states, replay.table, limited), teacher=replay.shape)
        losses = {arch: replay.recording(arch).loss for arch in goal.states}
        problem = Problem(limit_ms, goal, losses, evaluations, per_episode)
        if min(problem.best) <= 0:
            raise UsageError(
                f"recording of {replay.name}: the best reward of {len(losses)} architectures within {limit_ms:.3g} ms is "
                f"{problem.best[0]:.3g}, and their front has the volume {problem.best[1]:.3g}; both must be above 0: record with "
                "more --proxy.tokens"
            )
        problems.append(problem)
    return problems


def run_problem(problem: Problem, options: SearchOptions, hint: bool) -> list[int]:
    """Ids that a strategy proposes: as many as the schedule has, or all."""
    episodes = -(-problem.evaluations // problem.per_episode)
    options = replace(options, episodes=episodes, candidates_per_episode=problem.per_episode)
    goal = problem.goal if hint else replace(problem.goal, teacher=None)
    return run_once(goal, problem.losses, options, hint)[: problem.evaluations]


def describe(problem: Problem, ids: Sequence[int], target: float) -> dict[str, Any]:
    """Evaluations until the target, and regret and front after each part of the schedule.

    Returns:
        `needed`: evaluations, None if the target was not reached; `regret` and `front`: after 1 / GRID, 2 / GRID ... of the
        schedule, as fractions of the best.
    """
    best, whole = problem.best
    rewards, found = rewards_and_volumes([arch_from_id(number) for number in ids], problem.goal, problem.losses)
    regret = 1 - rewards / best
    reached = np.flatnonzero(regret <= 1 - target + EXACT)
    ends = [min(len(ids), max(1, round(part * problem.evaluations / GRID))) - 1 for part in range(1, GRID + 1)]
    return {
        "needed": int(reached[0]) + 1 if len(reached) else None,
        "regret": [round(max(0.0, float(regret[end])), 6) for end in ends],
        "front": [round(float(found[end] / whole), 6) for end in ends],
    }
