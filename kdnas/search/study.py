"""A test of strategies: every one on recordings of several teachers, within random limits of latency, with and without the hint.

The hint is the shape of the teacher, which a student resembles at its start. A strategy without it does not know the shape.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from kdnas.errors import UsageError
from kdnas.models.arch import Arch, arch_from_id
from kdnas.search.comparison import RUNS, STUDY, run_once
from kdnas.search.comparison_options import ComparisonOptions
from kdnas.search.curves import EXACT, best_reward, best_volume, rewards_and_volumes
from kdnas.search.goal import Goal
from kdnas.search.limits import make_goal
from kdnas.search.options import SearchOptions
from kdnas.search.processes import finished
from kdnas.search.replays import Replay
from kdnas.search.strategies import STRATEGIES
from kdnas.search.study_cells import GRID, KEYS, Cell
from kdnas.search.study_page import write_study
from kdnas.store.artifact import Artifact, append_jsonl, build, read_jsonl
from kdnas.store.progress import stage

LOWEST, HIGHEST = 5, 80  # percentiles of the recorded latencies between which the limits are drawn
SEEDS = 1000  # seeds of a limit; those of the next limit come after them


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


def run_study(home: Path, replays: Sequence[Replay], options: ComparisonOptions) -> Artifact:
    """Run all strategies within all limits; finished runs are kept if the study is interrupted.

    Args:
        home: root of artifacts.
        replays: a recording for each teacher.
        options: strategies, limits and schedule.

    Returns:
        Artifact with `runs.jsonl`, `limits.csv`, `strategies.csv`, `strategies.md`, `curves.csv` and `strategies.html`.

    Raises:
        UsageError: the shape of a teacher is unknown, or nothing can be compared within a limit.
    """
    problems = [make_problems(replay, options, index) for index, replay in enumerate(replays)]

    def work(path: Path) -> dict[str, Any]:
        rows = _runs(path / RUNS, problems, options)
        cells = [
            Cell(name, hint, replays[index].name, _by_limit(rows, (index, name, hint)))
            for index in range(len(replays))
            for name, hint in settings_of(options.strategies)
        ]
        return write_study(path, replays, problems, cells, options)

    inputs = {f"recording {index}": replay.recording.digest for index, replay in enumerate(replays)}
    inputs |= {f"latency-table {index}": replay.table.digest for index, replay in enumerate(replays)}
    config = {
        "options": options,
        "teachers": [replay.name for replay in replays],
        "shapes": [str(replay.shape) for replay in replays],
        "spaces": [replay.space for replay in replays],
        "settings": SearchOptions(),  # the defaults of the strategies
    }
    return build(home, STUDY, "replays", config, inputs, work)


def settings_of(strategies: Sequence[str]) -> list[tuple[str, bool]]:
    """Strategies without and with the hint; those that only follow the hint run with it alone."""
    return [(name, hint) for name in strategies for hint in (False, True) if hint or not STRATEGIES[name].needs_hint]


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


_problems: Sequence[Sequence[Problem]] = ()  # of a worker process


def _prepare(problems: Sequence[Sequence[Problem]]) -> None:
    global _problems
    _problems = problems


def _work(index: int, limit: int, name: str, hint: bool, run: int, options: ComparisonOptions) -> dict[str, Any]:
    """A run in a worker process, described in numbers."""
    problem, start = _problems[index][limit], time.monotonic()
    ids = run_problem(problem, options.search(name, SEEDS * limit + run), hint)
    seconds = time.monotonic() - start
    return {"ids": ids, **describe(problem, ids, options.reached_at), "seconds": round(seconds, 4)}


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


def _runs(path: Path, problems: Sequence[Sequence[Problem]], options: ComparisonOptions) -> list[dict[str, Any]]:
    """All runs, sorted; each is written when it is done."""
    rows = read_jsonl(path)
    done = {tuple(row[name] for name in KEYS) for row in rows}
    keys = [
        (index, limit, name, hint, run)
        for run in range(options.runs)
        for index, of_recording in enumerate(problems)
        for limit in range(len(of_recording))
        for name, hint in settings_of(options.strategies)
        if run < options.runs_of(name)
    ]
    calls = {key: (*key, options) for key in keys if key not in done}
    with stage("strategies", len(keys), len(done)) as progress:
        for key, found in finished(_work, calls, _prepare, problems):
            rows.append(dict(zip(KEYS, key, strict=True)) | found)
            append_jsonl(path, rows[-1])
            progress.advance(1)
    return sorted(rows, key=lambda row: [row[name] for name in KEYS])


def _by_limit(rows: Sequence[Mapping[str, Any]], cell: tuple[int, str, bool]) -> list[list[Mapping[str, Any]]]:
    """Runs of one strategy on one recording: limit to its runs."""
    found: dict[int, list[Mapping[str, Any]]] = {}
    for row in rows:
        if (row["recording"], row["strategy"], row["hint"]) == cell:
            found.setdefault(row["limit"], []).append(row)
    return [found[limit] for limit in sorted(found)]
