"""Strategies never repeat a proposal, replay deterministically and beat random search."""

from dataclasses import replace

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdnas.errors import UsageError
from kdnas.models.arch import Arch, SearchSpace
from kdnas.search.controller import Controller
from kdnas.search.design import features, gower, nearest
from kdnas.search.goal import Goal
from kdnas.search.options import SearchOptions
from kdnas.search.pareto import hypervolume
from kdnas.search.strategies import STRATEGIES, Observation, Strategy, make_strategy, with_hint
from kdnas.search.strategies.lstm import Epsilon, Kdnas

SMALL = SearchSpace(layers=(3, 4), heads=(12,), hidden=(288, 384), ffn=(384, 768, 1536), activation=("gelu", "relu"))


def strategy(seed: int, epsilon: Epsilon = Epsilon(), space: SearchSpace = SMALL, epochs: int = 1) -> Kdnas:
    return Kdnas(
        space, epsilon, Controller(SearchOptions(controller_lr=1e-2, controller_epochs=epochs), seed=seed), seed
    )


def value(arch: Arch) -> float:
    return 1 + arch.layers * arch.hidden * arch.ffn / 1e7


def observe(archs: list[Arch]) -> list[Observation]:
    return [Observation(arch, value(arch)) for arch in archs]


def test_published_epsilon_explores_195_of_300() -> None:
    epsilon = Epsilon()
    assert [epsilon.at(episode) for episode in (0, 1, 14, 19, 30)] == pytest.approx([1.0, 0.95, 0.30, 0.05, 0.05])
    assert 20 * sum(epsilon.at(episode) for episode in range(15)) == pytest.approx(195)


@pytest.mark.parametrize("seed", range(5))
def test_exactly_the_share_epsilon_of_an_episode_is_random(seed: int) -> None:
    goal = goal_of(SearchSpace())
    options = SearchOptions(strategy="kdnas", epsilon_draw="fraction", controller_epochs=1, seed=seed)
    asked, explored = make_strategy(goal, options), []
    for _ in range(4):
        proposals = asked.ask(20)
        explored.append(sum(proposal.explored for proposal in proposals))
        asked.tell(observe([proposal.arch for proposal in proposals]))
    assert explored == [20, 19, 18, 17]


@pytest.mark.parametrize("wrong", [{"start": 1.5}, {"decay": -0.1}, {"minimum": 2.0}])
def test_epsilon_outside_0_to_1_is_rejected(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="allowed are 0 to 1"):
        Epsilon(**wrong)


@pytest.mark.slow
@settings(max_examples=10)
@given(seed=st.integers(0, 2**31), decay=st.sampled_from([0.0, 0.3, 1.0]), count=st.integers(1, 9))
def test_proposals_never_repeat_and_exhaust_the_space(seed: int, decay: float, count: int) -> None:
    asked, tried = strategy(seed, Epsilon(decay=decay)), []
    while proposals := asked.ask(count):
        assert len(proposals) == min(count, len(SMALL) - len(tried))
        tried += [proposal.arch for proposal in proposals]
        asked.tell(observe([proposal.arch for proposal in proposals]))
    assert sorted(tried) == sorted(SMALL)


@settings(max_examples=10)
@given(seed=st.integers(0, 2**31), done=st.integers(0, 5), episode=st.integers(0, 2))
def test_replay_proposes_the_same_as_an_uninterrupted_run(seed: int, done: int, episode: int) -> None:
    straight, resumed = strategy(seed, Epsilon(decay=0.4)), strategy(seed, Epsilon(decay=0.4))
    for _ in range(episode):
        observed = observe([proposal.arch for proposal in straight.ask(5)])
        straight.tell(observed)
        resumed.tell(observed)
    whole = straight.ask(5)
    assert resumed.ask(5, [proposal.arch for proposal in whole[:done]]) == whole[done:]


def test_explores_first_and_then_exploits_predictions() -> None:
    greedy = strategy(0, Epsilon(start=1.0, decay=1.0, minimum=0.0), SearchSpace(), epochs=10)
    first = greedy.ask(30)
    assert all(proposal.explored and proposal.predicted_reward is None for proposal in first)
    greedy.tell(observe([proposal.arch for proposal in first]))
    second = greedy.ask(10)
    assert not any(proposal.explored for proposal in second)
    scores = greedy.scores()
    taken = {proposal.arch for proposal in first}
    unexplored = [(score, arch) for score, arch in zip(scores, greedy.states, strict=True) if arch not in taken]
    best = sorted((score for score, _ in unexplored), reverse=True)[:10]
    assert [proposal.predicted_reward for proposal in second] == pytest.approx(best)
    # The controller has learned: its choices clearly beat the random ones.
    mean_first, mean_second = (np.mean([value(p.arch) for p in proposals]) for proposals in (first, second))
    assert mean_second > mean_first + np.std([value(arch) for arch in SearchSpace()])


def test_controller_input_includes_global_and_previous_best() -> None:
    learner = strategy(0)
    states = learner.states
    learner.tell([Observation(states[3], 2.0), Observation(states[5], 1.0)])
    learner.tell([Observation(states[7], 1.5), Observation(states[8], None)])
    context = learner._with_context(learner._encoded)
    assert np.array_equal(context[0, 0], learner._encoded[0])
    assert np.array_equal(context[0, 1], learner._encoded[3])
    assert np.array_equal(context[0, 2], learner._encoded[7])
    # Proposals of the first episode have no best architecture as context.
    assert learner._sequences[0][:, 1:].sum() == 0
    assert np.array_equal(learner._sequences[1][0, 1:], learner._encoded[[3, 3]])


def test_a_failure_counts_as_the_worst_reward() -> None:
    learner = strategy(0)
    learner.tell([Observation(learner.states[0], 0.5), Observation(learner.states[1], None)])
    assert learner._rewards().tolist() == [0.5, 0.0]
    learner.tell([Observation(learner.states[2], -0.2)])
    assert learner._rewards().tolist() == [0.5, -0.2, -0.2]


def latency_ms(arch: Arch) -> float:
    return 0.3 + arch.flops(24) / 6e8 + 0.05 * arch.layers


def loss_of(arch: Arch) -> float:
    """A realistic loss: it falls with size, slightly with depth, and is not smooth."""
    bump = 0.004 * np.sin(arch.hidden * arch.ffn + arch.heads)
    return float(0.6 * (arch.layer_parameters / 2e6) ** -0.2 + 0.02 * (arch.activation == "relu") + bump)


def goal_of(space: SearchSpace = SMALL, front: bool = False) -> Goal:
    latencies = {arch: latency_ms(arch) for arch in space}
    megabytes = {arch: arch.layer_parameters / 1e6 for arch in space}
    return Goal(latencies, 8.0, -0.06, 0.6, megabytes, front)


def results(goal: Goal, archs: list[Arch]) -> list[Observation]:
    """Observations; one in seven is a failure."""
    return [
        Observation(arch, None)
        if arch.ffn == 768
        else Observation(arch, goal.reward(arch, loss_of(arch)), loss_of(arch))
        for arch in archs
    ]


def make(name: str, goal: Goal, seed: int = 0) -> Strategy:
    return make_strategy(goal, SearchOptions(strategy=name, front=goal.front, seed=seed, controller_epochs=1))


def runs(goal: Goal, name: str, seed: int, count: int, episodes: int) -> list[Arch]:
    """All proposals of a strategy in a number of episodes."""
    strategy, tried = make(name, goal, seed), []
    for _ in range(episodes):
        archs = [proposal.arch for proposal in strategy.ask(count)]
        tried += archs
        strategy.tell(results(goal, archs))
    return tried


@pytest.mark.slow
@pytest.mark.parametrize("front", [False, True])
@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_proposes_each_architecture_once(name: str, front: bool) -> None:
    if front and STRATEGIES[name].reward_only:
        with pytest.raises(UsageError, match="not a front"):
            SearchOptions(strategy=name, front=True)
        return
    goal = goal_of(front=front)
    tried = runs(goal, name, 1, 5, 6)
    assert sorted(tried) == sorted(SMALL)
    assert runs(goal, name, 1, 5, 2) == tried[:10]
    assert name == "surrogate" or runs(goal, name, 2, 5, 2) != tried[:10]
    assert make(name, goal).ask(0) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("done", [0, 2, 5])
def test_every_strategy_resumes_within_an_episode(name: str, done: int) -> None:
    goal = goal_of()
    straight, resumed = make(name, goal), make(name, goal)
    for _ in range(2):
        archs = [proposal.arch for proposal in straight.ask(5)]
        observed = results(goal, archs)
        straight.tell(observed)
        assert resumed.ask(5, archs) == []  # as in a search that reads a whole episode from its journal
        resumed.tell(observed)
    whole = straight.ask(5)
    assert resumed.ask(5, [proposal.arch for proposal in whole[:done]]) == whole[done:]


def test_sampler_falls_back_to_the_nearest_allowed_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    goal = goal_of()
    wanted = Arch(3, 12, 288, 768, "relu")  # indices in SMALL's fields: 0, 0, 0, 1
    fixed = {"layers": 0, "heads": 0, "hidden": 0, "ffn": 1, "activation": "relu"}
    random = optuna.samplers.RandomSampler(seed=0)
    # This sampler always suggests the same architecture.
    monkeypatch.setattr(optuna.samplers, "TPESampler", lambda **_: optuna.samplers.PartialFixedSampler(fixed, random))
    tried = runs(goal, "tpe", 0, 4, 2)
    assert tried[0] == wanted
    near = [Arch(3, 12, 288, ffn, "relu") for ffn in (384, 1536)]  # distance 0.5; all others at least 1
    assert sorted(tried[1:3]) == sorted(near)

    def far(arch: Arch) -> float:
        ffn = abs([384, 768, 1536].index(arch.ffn) - 1) / 2
        return ffn + (arch.layers != 3) + (arch.hidden != 288) + (arch.activation != "relu")

    distances = [far(arch) for arch in runs(goal, "tpe", 0, 5, 6)]
    assert distances == sorted(distances)


def test_distances_match_hand_computed_values() -> None:
    others = [Arch(3, 12, 288, 384), Arch(4, 12, 288, 768, "relu"), Arch(6, 2, 576, 1536, "silu")]
    assert gower(others, Arch(3, 12, 288, 384)).tolist() == [0, 0.5 + 0.5 + 1, 5]  # depths and widths by their indices
    rng = np.random.default_rng(0)
    found = {nearest(np.array([0.0, 2, 1, 1]), np.array([False, True, True, True]), rng) for _ in range(50)}
    assert found == {2, 3}


def test_gap_to_the_teacher_is_a_feature() -> None:
    archs = [Arch(3, heads, hidden, 384) for heads in (2, 6, 12) for hidden in (288, 384, 768)]
    lacks = features(archs, Arch(6, 6, 384, 1536))[:, -2:]
    assert features(archs).shape[1] == features(archs, archs[0]).shape[1] - 2
    heads, hidden = ({arch: row[index] for arch, row in zip(archs, lacks, strict=True)} for index in (0, 1))
    assert heads[archs[3]] == heads[archs[6]] < heads[archs[0]]  # more heads than the teacher's do not help
    assert hidden[archs[1]] == hidden[archs[2]] < hidden[archs[0]]


def test_surrogate_starts_with_architectures_closest_to_the_teacher() -> None:
    teacher = Arch(6, 12, 384, 1536, "relu")
    goal = replace(goal_of(), teacher=teacher)
    tried = runs(goal, "surrogate", 0, 3, 4)
    assert tried[0] == Arch(4, 12, 384, 1536, "relu")
    far = dict(zip(goal.states, gower(goal.states, teacher), strict=True))
    assert sorted(far[arch] for arch in tried[:4]) == pytest.approx(sorted(far.values())[:4])
    assert tried[4] != goal.states[int(np.argsort(list(far.values()))[4])]  # spread from there on
    assert len(set(tried)) == 12
    assert [proposal.explored for proposal in make("surrogate", goal).ask(6)] == [False] * 4 + [True] * 2
    assert tried[:4] != runs(goal_of(), "surrogate", 0, 3, 4)[:4]


@pytest.mark.slow
def test_surrogate_beats_a_random_order() -> None:
    goal = goal_of(SearchSpace().teachable(6))
    best = max(goal.reward(arch, loss_of(arch)) for arch in goal.states if arch.ffn != 768)
    needed = {}
    for name in ("surrogate", "random"):
        tried = runs(goal, name, 0, 10, 6)
        found = [one.reward if one.reward is not None else -1.0 for one in results(goal, tried)]
        needed[name] = max(found) / best
    assert needed["surrogate"] > 0.995
    assert needed["surrogate"] > needed["random"]


@pytest.mark.slow
def test_surrogate_follows_the_front() -> None:
    goal = goal_of(SearchSpace().teachable(6), front=True)
    areas = {}
    for name in ("surrogate", "random"):
        tried = runs(goal, name, 0, 10, 6)
        points = [goal.point(one.arch, one.loss) for one in results(goal, tried) if one.loss is not None]
        areas[name] = hypervolume(points, goal.worst)
    assert areas["surrogate"] > areas["random"]


def test_nearest_follows_the_distance_to_the_teacher() -> None:
    teacher = Arch(6, 12, 384, 1536, "relu")
    goal = replace(goal_of(), teacher=teacher)
    tried = runs(goal, "nearest", 0, 5, 6)
    far = dict(zip(goal.states, gower(goal.states, teacher), strict=True))
    assert [far[arch] for arch in tried] == pytest.approx(sorted(far.values()))
    assert len(set(tried)) == len(goal.states)


def test_hint_random_starts_as_the_surrogate_and_goes_on_at_random() -> None:
    goal = replace(goal_of(), teacher=Arch(6, 12, 384, 1536, "relu"))
    for seed in range(5):
        hinted, random = (runs(goal, name, seed, 8, 3) for name in ("hint-random", "random"))
        assert hinted[:4] == runs(goal, "surrogate", seed, 8, 1)[:4] == runs(goal, "nearest", seed, 8, 1)[:4]
        assert hinted[4:] == [arch for arch in random if arch not in hinted[:4]]


@pytest.mark.slow
@pytest.mark.parametrize("name", STRATEGIES)
def test_a_hint_gives_every_strategy_the_same_first_candidates(name: str) -> None:
    goal = replace(goal_of(), teacher=Arch(6, 12, 384, 1536, "relu"))
    given, tried = with_hint(make(name, goal), goal, 0), []
    for _ in range(6):
        archs = [proposal.arch for proposal in given.ask(5)]
        assert given.ask(5, archs[:2]) == given.ask(5)[2:]  # resumed within the episode
        given.tell(results(goal, archs))
        tried += archs
    assert tried[:4] == runs(goal, "nearest", 0, 4, 1)
    assert sorted(tried) == sorted(SMALL)
    assert name not in ("surrogate", "nearest", "hint-random") or tried == runs(goal, name, 0, 5, 6)  # its own


@pytest.mark.parametrize("name", ["random", "evolution"])
def test_a_hint_continues_after_a_small_episode(name: str) -> None:
    goal = replace(goal_of(), teacher=Arch(6, 12, 384, 1536, "relu"))
    given, tried = with_hint(make(name, goal), goal, 0), []
    for _ in range(len(SMALL)):
        archs = [proposal.arch for proposal in given.ask(1)]
        given.tell(results(goal, archs))
        tried += archs
    assert tried[:4] == runs(goal, "nearest", 0, 4, 1)
    assert sorted(tried) == sorted(SMALL)
