"""Regret and front of the runs of a strategy after each evaluation."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdnas.models.arch import Arch, arch_from_id
from kdnas.search.goal import Goal
from kdnas.search.pareto import improvements

BAND = (5, 50, 95)  # percentiles over seeds
EXACT = 1e-12  # of a regret: rounding


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
    def of(cls, rows: Sequence[dict[str, Any]], goal: Goal, losses: Mapping[Arch, float]) -> "Curves":
        """Curves from the ids that the runs proposed."""
        best, whole = best_reward(goal, losses), best_volume(goal, losses)
        found = [rewards_and_volumes([arch_from_id(one) for one in row["ids"]], goal, losses) for row in rows]
        return cls(
            np.array([1 - rewards / best for rewards, _ in found]), np.array([volumes / whole for _, volumes in found])
        )

    def needed(self, target: float) -> np.ndarray:
        """Number of evaluations to reach a fraction of the best reward, (runs,); one more than the run's number if never."""
        reached = self.regret <= 1 - target + EXACT
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


def best_reward(goal: Goal, losses: Mapping[Arch, float]) -> float:
    """The best reward of all recorded architectures."""
    return max(goal.reward(arch, loss) for arch, loss in losses.items())


def best_volume(goal: Goal, losses: Mapping[Arch, float]) -> float:
    """Hypervolume of all recorded architectures."""
    return float(volumes([goal.point(arch, loss) for arch, loss in losses.items()], goal)[-1])


def rewards_and_volumes(
    archs: Sequence[Arch], goal: Goal, losses: Mapping[Arch, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Best reward so far and hypervolume so far after each of N evaluations, both (N,)."""
    rewards = np.maximum.accumulate([goal.reward(arch, losses[arch]) for arch in archs])
    return rewards, volumes([goal.point(arch, losses[arch]) for arch in archs], goal)


def volumes(points: Sequence[tuple[float, float, float]], goal: Goal) -> np.ndarray:
    """Hypervolume after each point, (N,)."""
    front, total, found = np.zeros((0, 3)), 0.0, []
    for point in np.array(points):
        gain = float(improvements(front, point[None], goal.worst)[0])
        if gain > 0:  # drop the points that it dominates
            front = np.vstack([front[~(front >= point).all(1)], point])
        total += gain
        found.append(total)
    return np.array(found)


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
