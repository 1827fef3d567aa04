"""The controller learns, is deterministic, and scores a whole space at once."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from kdnas.models.arch import Arch, SearchSpace
from kdnas.search.controller import Controller, RewardModel, encode
from kdnas.search.options import SearchOptions

STATES = list(SearchSpace())


def sequences(archs: list[Arch], best: Arch | None = None, previous: Arch | None = None) -> np.ndarray:
    context = np.broadcast_to(encode([best, previous]), (len(archs), 2, 25))
    return np.concatenate([encode(archs)[:, None], context], axis=1)


def synthetic_reward(arch: Arch) -> float:
    """Synthetic reward: rises with every field except heads, saturates, and has a narrow range like Eq. 4."""
    return 1 + 0.02 * np.log(arch.layers * arch.hidden * arch.ffn) + 0.01 * (arch.activation == "gelu")


def ranks(values: np.ndarray) -> np.ndarray:
    return np.argsort(np.argsort(values)).astype(float)


def fitted(seed: int, episodes: int = 4, count: int = 12) -> tuple[Controller, list[Arch]]:
    picked = [STATES[index] for index in np.random.default_rng(seed).permutation(len(STATES))[: episodes * count]]
    controller = Controller(SearchOptions(controller_lr=3e-3, controller_epochs=10), seed=seed)
    for episode in range(episodes):
        seen = picked[: (episode + 1) * count]
        controller.fit(sequences(seen), np.array([synthetic_reward(arch) for arch in seen]), episode)
    return controller, picked


def test_encoding_is_one_hot_of_every_field() -> None:
    row = encode([Arch(3, 12, 288, 576, "silu")])[0]
    expected = "1000000001100000100000001"
    assert row.tolist() == [int(digit) for digit in expected]
    assert encode([None]).sum() == 0
    assert len({tuple(row) for row in encode(STATES)}) == 2400


def test_controller_has_the_published_shape() -> None:
    lstm = Controller(SearchOptions(controller_lr=1e-4, controller_epochs=10), seed=0).model.lstm
    assert (lstm.hidden_size, lstm.num_layers, lstm.input_size) == (32, 1, 25)


@pytest.mark.slow
def test_ranks_unseen_architectures() -> None:
    controller, picked = fitted(seed=0)
    unseen = [arch for arch in STATES if arch not in set(picked)]
    truth = ranks(np.array([synthetic_reward(arch) for arch in unseen]))
    untrained = Controller(SearchOptions(controller_lr=1e-3, controller_epochs=10), seed=0).predict(sequences(unseen))
    correlation = np.corrcoef(ranks(controller.predict(sequences(unseen))), truth)[0, 1]
    assert correlation > 0.8
    assert correlation > np.corrcoef(ranks(untrained), truth)[0, 1] + 0.2
    # Predictions are rewards, not standardised scores.
    assert abs(controller.predict(sequences(unseen)).mean() - np.mean([synthetic_reward(a) for a in unseen])) < 0.02


@pytest.mark.slow
def test_weights_depend_on_the_seed_not_on_global_random_state() -> None:
    torch.manual_seed(1)
    first, _ = fitted(seed=3, episodes=2)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    second, _ = fitted(seed=3, episodes=2)
    assert torch.equal(torch.get_rng_state(), state)
    other, _ = fitted(seed=4, episodes=2)
    scores = first.predict(sequences(STATES))
    assert np.array_equal(scores, second.predict(sequences(STATES)))
    assert not np.allclose(scores, other.predict(sequences(STATES)))


def test_learning_rate_decays_each_episode() -> None:
    controller = Controller(SearchOptions(controller_lr=1e-4, controller_epochs=1), seed=0)
    for episode, expected in enumerate([1e-4, 0.95e-4, 0.95**2 * 1e-4]):
        controller.fit(sequences(STATES[:2]), np.array([1.0, 2.0]), episode)
        assert controller.optimizer.param_groups[0]["lr"] == pytest.approx(expected)


def test_equal_rewards_do_not_divide_by_zero() -> None:
    controller = Controller(SearchOptions(controller_lr=1e-3, controller_epochs=2), seed=0)
    assert np.isfinite(controller.fit(sequences(STATES[:3]), np.array([1.5, 1.5, 1.5]), 0))
    assert np.isfinite(controller.predict(sequences(STATES))).all()


def test_batched_prediction_equals_single_predictions() -> None:
    controller, picked = fitted(seed=1, episodes=1)
    together = controller.predict(sequences(STATES, picked[0], picked[1]))
    indices = range(0, len(STATES), 37)
    alone = [controller.predict(sequences([STATES[index]], picked[0], picked[1]))[0] for index in indices]
    np.testing.assert_allclose(together[list(indices)], alone, rtol=0, atol=1e-6)


PUBLISHED = SearchOptions(
    controller_memory="episode", controller_update="episode", controller_targets="raw", controller_square_decay=0.95
)


def test_published_training_is_eq_3_by_rmsprop() -> None:
    """One update per epoch on half the sum of squared errors of the episode's raw rewards, in plain torch."""
    earlier, latest = sequences(STATES[:3]), sequences(STATES[100:104])
    rewards = np.array([5.0, 6.0, 7.0, 1.02, 1.05, 1.07, 1.01])
    controller = Controller(PUBLISHED, seed=2)
    model = RewardModel()
    model.load_state_dict(controller.model.state_dict())
    controller.fit(np.concatenate([earlier, latest]), rewards, 0, latest=4)
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-4, alpha=0.95)
    inputs, targets = torch.from_numpy(latest), torch.from_numpy(rewards[3:]).float()
    for _ in range(10):
        optimizer.zero_grad()
        (0.5 * (model(inputs) - targets).square().sum()).backward()
        optimizer.step()
    for ours, theirs in zip(controller.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    # Predictions are in the units of the rewards.
    with torch.no_grad():
        expected = model(inputs).numpy()
    np.testing.assert_allclose(controller.predict(latest), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "other",
    [
        {"controller_memory": "all"},
        {"controller_update": "result"},
        {"controller_targets": "standardised"},
        {"controller_square_decay": 0.99},
        {"controller_decay_each": "epoch"},
    ],
)
def test_every_option_of_the_training_changes_it(other: dict[str, Any]) -> None:
    found = []
    for training in (PUBLISHED, replace(PUBLISHED, **other)):
        controller = Controller(training, seed=0)
        controller.fit(sequences(STATES[:6]), np.array([1.0, 1.5, 2.0, 1.1, 1.2, 1.3]), 1, latest=3)
        found.append(controller.predict(sequences(STATES[:50])))
    assert not np.array_equal(*found)


def test_learning_rate_decays_each_epoch() -> None:
    controller = Controller(replace(PUBLISHED, controller_decay_each="epoch"), seed=0)
    controller.fit(sequences(STATES[:2]), np.array([1.0, 2.0]), 3)
    assert controller.optimizer.param_groups[0]["lr"] == pytest.approx(1e-4 * 0.95 ** (3 * 10 + 9))
