"""A Gaussian process of the loss; the latency of every architecture is known before the first is distilled.

The rewards of similar architectures differ mostly by their latency, which a model of the reward would have to learn. The loss
falls smoothly with the size of a student. So this strategy models the loss, by a linear model of features and a Gaussian
process of its residuals, and computes the reward of all architectures by Eq. 4.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from kdnas.models.arch import Arch
from kdnas.search.design import farthest, features, gower, nearest
from kdnas.search.goal import Goal
from kdnas.search.pareto import improvements
from kdnas.search.strategies.hint import NEAREST
from kdnas.search.strategies.protocol import Observation, Proposal

SPREAD = 10  # architectures before the model is used; those after the nearest are spread over the space
RIDGE = 1e-3  # of the linear model
OPTIMISM = 1.0  # standard deviations below the expected loss, in a search for the front


class Surrogate:
    """See `Strategy`.

    Args:
        goal: architectures, their latencies, and their reward.
        seed: seed of the first architectures.
    """

    def __init__(self, goal: Goal, seed: int) -> None:
        self._goal, self._seed, self._episode = goal, seed, 0
        self._states = list(goal.states)
        self._index = {arch: index for index, arch in enumerate(self._states)}
        self._features = features(self._states, goal.teacher)
        self._likely = NEAREST if goal.teacher else 0
        self._from_teacher = gower(self._states, goal.teacher) if goal.teacher else np.zeros(len(self._states))
        self._known = np.array([goal.point(arch, 0.0)[1:] for arch in self._states])  # latency and memory
        self._left = np.ones(len(self._states), dtype=bool)
        self._seen: list[int] = []
        self._losses: list[float] = []
        self._failed: list[int] = []

    def ask(self, count: int, evaluated: Sequence[Arch] = ()) -> list[Proposal]:
        """The nearest to the teacher, then spread ones, then those with the highest expected improvement.

        Within an episode, each proposal counts as evaluated with its expected loss when the next is chosen.
        """
        left, seen, losses, proposals = self._left.copy(), list(self._seen), list(self._losses), []
        kernel: Any = None
        for number in range(count):
            if not left.any():
                break
            rng = np.random.default_rng([self._seed, self._episode, number])
            tried, predicted = len(self._seen) + len(self._failed) + number, None
            like_teacher = tried < self._likely
            spread = not like_teacher and (tried < SPREAD or len(self._seen) < 2)
            if like_teacher:
                index = nearest(self._from_teacher, left, rng)
            elif spread:
                index = farthest(self._features, left, rng)
            else:
                model = LossModel(self._features[seen], np.array(losses), kernel)
                kernel = model.kernel
                mean, deviation = model(self._features)
                index = int(np.argmax(np.where(left, self._gain(mean, deviation, seen, losses), -np.inf)))
                predicted = self._goal.reward(self._states[index], float(mean[index]))
                seen.append(index)
                losses.append(float(mean[index]))
            left[index] = False
            proposals.append(Proposal(self._states[index], spread, predicted))
        return [proposal for proposal in proposals if proposal.arch not in set(evaluated)]

    def tell(self, observations: Sequence[Observation]) -> None:
        """Failed evaluations are excluded and otherwise ignored."""
        for observation in observations:
            index = self._index[observation.arch]
            self._left[index] = False
            if observation.loss is None:
                self._failed.append(index)
            else:
                self._seen.append(index)
                self._losses.append(observation.loss)
        self._episode += 1

    def _gain(self, mean: np.ndarray, deviation: np.ndarray, seen: list[int], losses: list[float]) -> np.ndarray:
        """Expected improvement of each architecture, (N,), or its gain in hypervolume if the front is searched."""
        if self._goal.front:
            found = [self._goal.point(self._states[index], loss) for index, loss in zip(seen, losses, strict=True)]
            optimistic = np.column_stack([mean - OPTIMISM * deviation, self._known])
            return improvements(np.array(found), optimistic, self._goal.worst)
        from scipy.stats import norm

        rewards, worse = self._rewards(mean), self._rewards(mean + deviation)
        spread = np.maximum(rewards - worse, 1e-12)
        best = max(self._goal.reward(self._states[index], loss) for index, loss in zip(seen, losses, strict=True))
        by = (rewards - best) / spread
        improvement: np.ndarray = spread * (by * norm.cdf(by) + norm.pdf(by))
        return improvement

    def _rewards(self, losses: np.ndarray) -> np.ndarray:
        return np.array([self._goal.reward(arch, float(loss)) for arch, loss in zip(self._states, losses, strict=True)])


class LossModel:
    """A linear model of features, and a Gaussian process of its residuals.

    Args:
        inputs: (n, d) features of the distilled architectures.
        losses: (n,).
        kernel: keeps the hyperparameters of an earlier fit; None fits them.
    """

    def __init__(self, inputs: np.ndarray, losses: np.ndarray, kernel: Any = None) -> None:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

        design = _with_one(inputs)
        penalty = RIDGE * np.eye(design.shape[1])
        self._line = np.linalg.solve(design.T @ design + penalty, design.T @ losses)
        rest = losses - design @ self._line
        self._scale = float(rest.std()) or 1.0
        if kernel is None:
            smooth = Matern(np.ones(inputs.shape[1]), (0.1, 30.0), nu=2.5)
            kernel, optimizer = (
                ConstantKernel(1.0, (1e-2, 1e2)) * smooth + WhiteKernel(0.05, (1e-4, 1.0)),
                "fmin_l_bfgs_b",
            )
        else:
            optimizer = None
        self._process = GaussianProcessRegressor(kernel, optimizer=optimizer)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._process.fit(inputs, rest / self._scale)
        self.kernel = self._process.kernel_

    def __call__(self, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Expected losses (N,) and their standard deviations (N,)."""
        rest, deviation = self._process.predict(inputs, return_std=True)
        return _with_one(inputs) @ self._line + rest * self._scale, deviation * self._scale


def _with_one(inputs: np.ndarray) -> np.ndarray:
    return np.column_stack([np.ones(len(inputs)), inputs])
