"""Optuna's samplers as strategies: TPE, a Gaussian process, NSGA-II."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from kdnas.models.arch import FIELDS, Arch
from kdnas.search.design import gower, nearest
from kdnas.search.goal import Goal
from kdnas.search.strategies.protocol import Observation, Proposal

GENERATION = 20  # of NSGA-II


class Sampler:
    """See `Strategy`. Optuna maximises the reward or, in a search for the front, minimises loss, latency and memory.

    A number is encoded by the index of its value in the space, so that samplers know which values are close; the activation
    has no order. If a suggestion was evaluated before or is not in the space, the nearest remaining architecture is proposed
    (Gower's distance). Asking the sampler again until it fits would take a Gaussian process minutes.

    Args:
        goal: architectures and their reward.
        name: `tpe`, `gp` or `nsga2`.
        seed: seed of the sampler.
    """

    def __init__(self, goal: Goal, name: str, seed: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._optuna, self._goal, self._seed, self._episode = optuna, goal, seed, 0
        self._values = {field: sorted({getattr(arch, field) for arch in goal.states}) for field in FIELDS}
        self._distributions: dict[str, Any] = {
            field: optuna.distributions.CategoricalDistribution(values)
            if isinstance(values[0], str)
            else optuna.distributions.IntDistribution(0, len(values) - 1)
            for field, values in self._values.items()
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler: Any = {
                "tpe": lambda: optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True),
                "gp": lambda: optuna.samplers.GPSampler(seed=seed, deterministic_objective=True),
                "nsga2": lambda: optuna.samplers.NSGAIISampler(seed=seed, population_size=GENERATION),
            }[name]()
        directions: Any = ["minimize"] * 3 if goal.front else ["maximize"]
        self._study = optuna.create_study(directions=directions, sampler=sampler)
        self._states = goal.states
        self._left = dict.fromkeys(self._states)
        self._trials: dict[Arch, Any] = {}

    def ask(self, count: int, evaluated: Sequence[Arch] = ()) -> list[Proposal]:
        """Suggestions of the sampler: all of an episode, before any of its results are known."""
        if not self._trials:
            for number in range(min(count, len(self._left))):
                self._suggest(np.random.default_rng([self._seed, self._episode, number]))
        return [Proposal(arch, False, None) for arch in self._trials if arch not in set(evaluated)]

    def _suggest(self, rng: np.random.Generator) -> None:
        trial = self._study.ask(self._distributions)
        arch = self._arch(trial.params)
        if arch not in self._left or arch in self._trials:
            self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
            arch = self._nearest(arch, rng)
            trial = self._trial_of(arch)
        self._trials[arch] = trial

    def _trial_of(self, arch: Arch) -> Any:
        """A trial of the study with the fields of an architecture that the sampler did not suggest."""
        self._study.enqueue_trial(self._params(arch))
        return self._study.ask(self._distributions)

    def _nearest(self, wanted: Arch, rng: np.random.Generator) -> Arch:
        """The nearest architecture that was not proposed yet; ties are broken at random."""
        free = np.array([arch in self._left and arch not in self._trials for arch in self._states])
        return self._states[nearest(gower(self._states, wanted), free, rng)]

    def tell(self, observations: Sequence[Observation]) -> None:
        """Failed evaluations are failed trials of the study, and so are suggestions that others replaced (`Hinted`)."""
        self.ask(len(observations))  # after an interruption between two episodes nothing was asked
        for observation in observations:
            trial = self._trials.pop(observation.arch, None) or self._trial_of(observation.arch)
            self._left.pop(observation.arch)
            if observation.reward is None or observation.loss is None:
                self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
            elif self._goal.front:
                self._study.tell(trial, self._goal.point(observation.arch, observation.loss))
            else:
                self._study.tell(trial, observation.reward)
        for trial in self._trials.values():
            self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
        self._trials = {}
        self._episode += 1

    def _arch(self, params: dict[str, Any]) -> Arch:
        found = {
            name: params[name] if isinstance(values[0], str) else values[params[name]]
            for name, values in self._values.items()
        }
        return Arch(**found)

    def _params(self, arch: Arch) -> dict[str, Any]:
        return {
            name: getattr(arch, name) if isinstance(values[0], str) else values.index(getattr(arch, name))
            for name, values in self._values.items()
        }
