"""Strategies of the search, all behind one ask/tell protocol. Register new ones in `STRATEGIES`."""

from collections.abc import Callable
from dataclasses import dataclass

from kdnas.search.goal import Goal
from kdnas.search.strategies.protocol import Observation, Proposal, Settings, Strategy

__all__ = ["STRATEGIES", "Observation", "Proposal", "Registered", "Settings", "Strategy", "make_strategy", "with_hint"]


@dataclass(frozen=True)
class Registered:
    """A strategy by name.

    Args:
        make: makes a strategy without results from the goal and the settings; imports the module when called.
        summary: one line for the help.
        reward_only: uses only the reward, so it cannot search for a front.
        needs_hint: only follows the shape of the teacher, so without it a random order remains.
    """

    make: Callable[[Goal, Settings], Strategy]
    summary: str
    reward_only: bool = False
    needs_hint: bool = False


def _kdnas(goal: Goal, settings: Settings) -> Strategy:
    from kdnas.search.controller import Controller
    from kdnas.search.strategies.lstm import Epsilon, Kdnas

    epsilon = Epsilon(settings.epsilon_start, settings.epsilon_decay, settings.epsilon_min, settings.epsilon_draw)
    controller = Controller(settings, settings.seed)
    return Kdnas(goal.states, epsilon, controller, settings.seed)


def _surrogate(goal: Goal, settings: Settings) -> Strategy:
    from kdnas.search.strategies.surrogate import Surrogate

    return Surrogate(goal, settings.seed)


def _random(goal: Goal, settings: Settings) -> Strategy:
    from kdnas.search.strategies.random_order import RandomOrder

    return RandomOrder(goal.states, settings.seed)


def _nearest(goal: Goal, settings: Settings) -> Strategy:
    from kdnas.search.strategies.hint import Nearest

    return Nearest(goal, settings.seed)


def _hint_random(goal: Goal, settings: Settings) -> Strategy:
    return with_hint(_random(goal, settings), goal, settings.seed)


def _evolution(goal: Goal, settings: Settings) -> Strategy:
    from kdnas.search.strategies.evolution import Evolution

    return Evolution(goal.states, settings.seed)


def _sampler(name: str) -> Callable[[Goal, Settings], Strategy]:
    """A sampler of Optuna."""

    def make(goal: Goal, settings: Settings) -> Strategy:
        from kdnas.search.strategies.samplers import Sampler

        return Sampler(goal, name, settings.seed)

    return make


STRATEGIES = {
    "kdnas": Registered(_kdnas, "the published LSTM controller", reward_only=True),
    "surrogate": Registered(_surrogate, "first the nearest to the teacher, then a Gaussian process of the loss"),
    "random": Registered(_random, "a random order"),
    "nearest": Registered(_nearest, "the nearest to the teacher first, without a model", needs_hint=True),
    "hint-random": Registered(_hint_random, "first those of `surrogate`, then a random order", needs_hint=True),
    "evolution": Registered(_evolution, "regularised evolution", reward_only=True),
    "tpe": Registered(_sampler("tpe"), "Optuna's tree-structured Parzen estimator"),
    "gp": Registered(_sampler("gp"), "Optuna's Gaussian process of the reward"),
    "nsga2": Registered(_sampler("nsga2"), "Optuna's NSGA-II"),
}


def make_strategy(goal: Goal, settings: Settings) -> Strategy:
    """The strategy named in the settings, without results.

    Args:
        goal: architectures, their latency and size, and the reward.
        settings: name, seed and settings, as in `SearchOptions`.
    """
    return STRATEGIES[settings.strategy].make(goal, settings)


def with_hint(strategy: Strategy, goal: Goal, seed: int) -> Strategy:
    """The same strategy with the first candidates of `surrogate`: the nearest to the teacher, if its shape is known."""
    from kdnas.search.strategies.hint import NEAREST, Hinted, nearest_first

    return Hinted(strategy, nearest_first(goal, seed, NEAREST) if goal.teacher else [])
