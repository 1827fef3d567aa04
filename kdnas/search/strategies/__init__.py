"""Strategies of the search, all behind one ask/tell protocol."""

from kdnas.search.goal import Goal
from kdnas.search.options import SearchOptions
from kdnas.search.strategies.protocol import Observation, Proposal, Strategy

__all__ = ["Observation", "Proposal", "Strategy", "make_strategy"]


def make_strategy(goal: Goal, options: SearchOptions) -> Strategy:
    """The strategy of these options, which knows nothing yet.

    Args:
        goal: architectures, what is known of each, and what is wanted.
        options: its name and settings.
    """
    if options.strategy == "kdnas":
        from kdnas.search.controller import Controller, Encoding
        from kdnas.search.strategies.lstm import Epsilon, Kdnas

        epsilon = Epsilon(options.epsilon_start, options.epsilon_decay, options.epsilon_min)
        encoding = Encoding(goal.states)
        controller = Controller(options.controller_lr, options.controller_epochs, options.seed, encoding)
        return Kdnas(goal.states, epsilon, controller, options.seed)
    if options.strategy == "random":
        from kdnas.search.strategies.random_order import RandomOrder

        return RandomOrder(goal.states, options.seed)
    if options.strategy == "evolution":
        from kdnas.search.strategies.evolution import Evolution

        return Evolution(goal.states, options.seed)
    if options.strategy == "surrogate":
        from kdnas.search.strategies.surrogate import Surrogate

        return Surrogate(goal, options.seed)
    from kdnas.search.strategies.samplers import Sampler

    return Sampler(goal, options.strategy, options.seed)
