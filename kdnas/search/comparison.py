"""`kdnas compare-strategies`: strategies on the same recorded losses, with many seeds."""

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from kdnas.errors import UsageError
from kdnas.models.arch import Arch, SearchSpace, arch_from_id, arch_id
from kdnas.models.table import LatencyTable
from kdnas.models.teacher import Teacher, resolve_teacher
from kdnas.search.comparison_page import write_comparison_page
from kdnas.search.goal import Goal
from kdnas.search.limits import make_goal
from kdnas.search.options import SearchOptions
from kdnas.search.pareto import improvements
from kdnas.search.random_table import random_and_recommended
from kdnas.search.recording import Recording, read_recording
from kdnas.search.strategies import STRATEGIES, Observation, make_strategy, with_hint
from kdnas.store.artifact import Artifact, append_jsonl, build, read_jsonl
from kdnas.store.host import physical_cores
from kdnas.store.outcome import Result
from kdnas.store.output import deliver, require_output
from kdnas.store.progress import stage
from kdnas.text.pydocs import leave_signals_to_the_parent

RUNS, CURVES, PAGE = "runs.jsonl", "curves.csv", "strategies.html"
BAND = (5, 50, 95)  # percentiles over seeds


@dataclass(frozen=True)
class ComparisonOptions:
    """The strategies to compare, and the settings of their runs.

    Args:
        strategies: names of strategies of `kdnas search`, the reference first.
        runs: seeds per strategy.
        episodes: episodes per run; the published number.
        candidates_per_episode: architectures per episode; the published number.
        target: fraction of the best reward that a run should reach.
        alpha: exponent of the latency in Eq. 4.
        beta: fraction of the teacher's latency in Eq. 4.
        max_latency_fraction: largest latency as a fraction of the teacher's; null allows any.
        hint: give every strategy the first candidates of `surrogate`: the four nearest to the teacher's shape.
        without_teacher_shape: leave out the architectures with the teacher's layers, heads and widths, with any activation.
    """

    strategies: tuple[str, ...] = tuple(STRATEGIES)
    runs: int = 50
    episodes: int = 15
    candidates_per_episode: int = 20
    target: float = 0.995
    alpha: float = SearchOptions.alpha
    beta: float = SearchOptions.beta
    max_latency_fraction: float | None = SearchOptions.max_latency_fraction
    hint: bool = False
    without_teacher_shape: bool = False

    def __post_init__(self) -> None:
        wrong = [name for name in self.strategies if name not in STRATEGIES]
        if wrong or not self.strategies or len(set(self.strategies)) < len(self.strategies):
            raise UsageError(
                f"strategies is {', '.join(self.strategies)}; give different ones of {', '.join(STRATEGIES)}"
            )
        if self.runs < 1:
            raise UsageError(f"runs is {self.runs}; it must be at least 1")
        if not 0 < self.target <= 1:
            raise UsageError(f"target is {self.target}; allowed is above 0, at most 1")
        self.search(self.strategies[0], 0)

    def search(self, strategy: str, seed: int) -> SearchOptions:
        """Options of one run."""
        return SearchOptions(
            strategy=strategy,
            episodes=self.episodes,
            candidates_per_episode=self.candidates_per_episode,
            alpha=self.alpha,
            beta=self.beta,
            max_latency_fraction=self.max_latency_fraction,
            seed=seed,
        )


def compare_strategies(
    options: ComparisonOptions,
    recording: Path,
    table: Path,
    space: SearchSpace = SearchSpace(),
    teacher: str = "builtin:minilm-l6",
    home: Path = Path("artifacts"),
    output: Path | None = None,
) -> Result:
    """Run strategies on recorded losses.

    Args:
        options: the strategies and the setting of their runs.
        recording: folder or CSV that `kdnas record` printed.
        table: folder that `kdnas latency-table` printed.
        space: values that each field may take; only its recorded architectures are proposed.
        teacher: teacher of the recording and the table; the surrogate uses its shape.
        home: root of all artifacts.
        output: folder that gets the result as plain files; null writes only below `home`.
    """
    require_output(output, "strategies")
    known, found = LatencyTable.load(table), read_recording(recording)
    return deliver(run_comparison(home, found, known, space, options, resolve_teacher(teacher, home)), output)


def run_comparison(
    home: Path,
    recording: Recording,
    table: LatencyTable,
    space: SearchSpace,
    options: ComparisonOptions,
    teacher: Teacher | None = None,
) -> Artifact:
    """Run strategies on recorded losses; finished runs are kept if the comparison is interrupted.

    Args:
        home: root of artifacts.
        recording: losses.
        table: latencies.
        space: values that each field may take.
        options: the strategies and the setting of their runs.
        teacher: teacher of the recording; the surrogate uses its shape.

    Returns:
        Artifact with `runs.jsonl`, `curves.csv` and `strategies.html`.

    Raises:
        UsageError: no architecture of the space is recorded, none is within the limit, or a setting needs a teacher that
            is unknown.
    """
    states = recording.within(space)
    if options.without_teacher_shape:
        states = without_shape(states, teacher)
    goal = make_goal(states, table, options.search(options.strategies[0], 0), teacher)
    if options.hint and goal.teacher is None:
        raise UsageError("hint is true, but the shape of the recording's teacher is unknown: give its --teacher")
    losses = {arch: recording(arch).loss for arch in goal.states}

    def work(path: Path) -> dict[str, Any]:
        rows = _runs(path / RUNS, goal, losses, options)
        curves = {
            name: Curves.of([row for row in rows if row["strategy"] == name], goal, losses)
            for name in options.strategies
        }
        recommends = default if (default := SearchOptions.strategy) in options.strategies else options.strategies[0]
        first = next(row for row in rows if row["strategy"] == recommends and row["seed"] == 0)
        proposed = [arch_from_id(number) for number in first["ids"]]
        results = {
            "best_reward": best_reward(goal, losses),
            "architectures": len(losses),
            "strategies": {name: found.metrics(options.target) for name, found in curves.items()},
            "recommends": recommends,
            "table_3": random_and_recommended(goal, losses, proposed),
        }
        write_curves(path / CURVES, curves)
        write_comparison_page(path / PAGE, path / CURVES, results, asdict(options))
        return results

    inputs = {"recording": recording.digest, "latency-table": table.digest}
    config = {"space": space, "options": options, "teacher": str(goal.teacher)}
    return build(home, "strategies", "replay", config, inputs, work)


def without_shape(states: Sequence[Arch], teacher: Teacher | None) -> list[Arch]:
    """Architectures without those that have the teacher's layers, heads and widths.

    Raises:
        UsageError: there is no teacher, or nothing is left.
    """
    if teacher is None:
        raise UsageError("without_teacher_shape is true, but no teacher is given: add --teacher")
    sizes = teacher.sizes
    own = (sizes.layers, sizes.heads, sizes.hidden, sizes.ffn)
    found = [arch for arch in states if (arch.layers, arch.heads, arch.hidden, arch.ffn) != own]
    if not found:
        raise UsageError(
            f"without_teacher_shape is true: all {len(states)} recorded architectures have the teacher's shape; "
            "set it to false, or widen --space"
        )
    return found


def best_reward(goal: Goal, losses: dict[Arch, float]) -> float:
    """The best reward of all recorded architectures."""
    return max(goal.reward(arch, loss) for arch, loss in losses.items())


def run_once(goal: Goal, losses: dict[Arch, float], options: SearchOptions, hint: bool = False) -> list[int]:
    """Ids of the architectures that one strategy proposes, in order; with a hint, those nearest to the teacher first."""
    strategy, proposed = make_strategy(goal, options), []
    if hint:
        strategy = with_hint(strategy, goal, options.seed)
    for _ in range(options.episodes):
        archs = [proposal.arch for proposal in strategy.ask(options.candidates_per_episode)]
        if not archs:
            break
        strategy.tell([Observation(arch, goal.reward(arch, losses[arch]), losses[arch]) for arch in archs])
        proposed += [arch_id(arch) for arch in archs]
    return proposed


def _runs(path: Path, goal: Goal, losses: dict[Arch, float], options: ComparisonOptions) -> list[dict[str, Any]]:
    """All runs, one process per core; each run is written when it is done."""
    rows = read_jsonl(path)
    done = {(row["strategy"], row["seed"]) for row in rows}
    missing = [(name, seed) for seed in range(options.runs) for name in options.strategies if (name, seed) not in done]
    with stage("strategies", len(done) + len(missing), len(done)) as progress:
        for name, seed, proposed in _finished(goal, losses, options, missing):
            row = {"strategy": name, "seed": seed, "ids": proposed}
            append_jsonl(path, row)
            rows.append(row)
            progress.advance(1)
    return sorted(rows, key=lambda row: (options.strategies.index(row["strategy"]), row["seed"]))


def _finished(
    goal: Goal, losses: dict[Arch, float], options: ComparisonOptions, missing: Sequence[tuple[str, int]]
) -> Iterator[tuple[str, int, list[int]]]:
    if not missing:
        return
    pool = ProcessPoolExecutor(physical_cores(), get_context("spawn"), initializer=_start_process)
    try:
        waiting = {pool.submit(run_once, goal, losses, options.search(*key), options.hint): key for key in missing}
        while waiting:
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                yield (*waiting.pop(future), future.result())
    finally:
        pool.shutdown(cancel_futures=True)


def _start_process() -> None:
    """One thread per process: there is a process on every core."""
    leave_signals_to_the_parent()
    os.environ["OMP_NUM_THREADS"] = "1"


@dataclass(frozen=True)
class Curves:
    """Regret and hypervolume of the runs of one strategy after each evaluation.

    Args:
        regret: (runs, evaluations) 1 minus the best reward so far over the best recorded one.
        hypervolume: (runs, evaluations) hypervolume so far as a fraction of the best front's.
    """

    regret: np.ndarray
    hypervolume: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[dict[str, Any]], goal: Goal, losses: dict[Arch, float]) -> "Curves":
        """Curves from the ids that the runs proposed."""
        best = best_reward(goal, losses)
        whole = _volumes([goal.point(arch, loss) for arch, loss in losses.items()], goal)[-1]
        regret, volumes = [], []
        for row in rows:
            archs = [arch_from_id(number) for number in row["ids"]]
            rewards = np.maximum.accumulate([goal.reward(arch, losses[arch]) for arch in archs])
            regret.append(1 - rewards / best)
            volumes.append(_volumes([goal.point(arch, losses[arch]) for arch in archs], goal) / whole)
        return cls(np.array(regret), np.array(volumes))

    def needed(self, target: float) -> np.ndarray:
        """Number of evaluations to reach a fraction of the best reward, (runs,); one more than the run's number if never."""
        reached = self.regret <= 1 - target + 1e-12
        return np.where(reached.any(1), reached.argmax(1) + 1, reached.shape[1] + 1)

    def metrics(self, target: float) -> dict[str, Any]:
        """The metrics of a strategy in manifests and tables; bands are percentiles over seeds."""
        needed = self.needed(target)
        return {
            "runs": len(self.regret),
            "evaluations": self.regret.shape[1],
            "reached": int((needed <= self.regret.shape[1]).sum()),
            "evaluations_needed": [float(value) for value in np.percentile(needed, BAND)],
            "final_regret": [float(value) for value in np.percentile(self.regret[:, -1], BAND)],
            "final_hypervolume": [float(value) for value in np.percentile(self.hypervolume[:, -1], BAND)],
        }


def _volumes(points: Sequence[tuple[float, float, float]], goal: Goal) -> np.ndarray:
    """Hypervolume after each point, (N,)."""
    front, total, volumes = np.zeros((0, 3)), 0.0, []
    for point in np.array(points):
        gain = float(improvements(front, point[None], goal.worst)[0])
        if gain > 0:  # drop the points that it dominates
            front = np.vstack([front[~(front >= point).all(1)], point])
        total += gain
        volumes.append(total)
    return np.array(volumes)


def write_curves(file: Path, curves: Mapping[str, Curves]) -> None:
    """Write `curves.csv`: percentiles and means over the runs of each strategy after each evaluation."""
    with file.open("w", newline="") as written:
        table = csv.writer(written, lineterminator="\n")
        names = [f"{what}_{which}" for what in ("regret", "hypervolume") for which in ("low", "median", "high", "mean")]
        table.writerow(["strategy", "evaluations", *names])
        for strategy, found in curves.items():
            for index in range(found.regret.shape[1]):
                columns = (found.regret[:, index], found.hypervolume[:, index])
                values = [value for column in columns for value in (*np.percentile(column, BAND), column.mean())]
                table.writerow([strategy, index + 1, *(f"{value:.6f}" for value in values)])
