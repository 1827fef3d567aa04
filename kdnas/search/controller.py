"""The controller: an LSTM that predicts the reward of an architecture (arXiv 2303.09639, section 3)."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from kdnas.models.arch import FIELDS, Arch, SearchSpace
from kdnas.search.strategies.protocol import Training

CELLS = 32

COLUMNS = [(name, value) for name in FIELDS for value in getattr(SearchSpace(), name)]
WIDTH = len(COLUMNS)  # 25


def encode(archs: Sequence[Arch | None]) -> np.ndarray:
    """One-hot of each field's value over the published space: (N, 25) float32; zeros for None."""
    rows = [[arch is not None and getattr(arch, name) == value for name, value in COLUMNS] for arch in archs]
    return np.asarray(rows, dtype=np.float32).reshape(len(archs), WIDTH)


class RewardModel(nn.Module):
    """Single-layer LSTM of 32 cells over three architecture encodings, and a linear head on its last output."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(WIDTH, CELLS, batch_first=True)
        self.head = nn.Linear(CELLS, 1)

    def forward(self, sequences: Tensor) -> Tensor:
        """Rewards (N,), in the units of the targets, of sequences (N, 3, 25)."""
        outputs, _ = self.lstm(sequences)
        return self.head(outputs[:, -1]).squeeze(-1)


class Controller:
    """Learns to predict rewards, by RMSProp. The same results in the same order give the same weights.

    The weights are kept from one episode to the next. By default it learns from all results so far, one per update. Rewards lie
    close together (the paper's between 1.01 and 1.07), so by default the targets are standardised by the mean and the standard
    deviation of these rewards; without this, the few updates of an episode would only fit the mean.

    Args:
        training: options of the training.
        seed: seed of the initial weights and the order of the updates.
    """

    def __init__(self, training: Training, seed: int) -> None:
        self.training, self.seed = training, seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = RewardModel()
        self.optimizer = torch.optim.RMSprop(
            self.model.parameters(), lr=training.controller_lr, alpha=training.controller_square_decay
        )
        self.mean, self.scale = 0.0, 1.0

    def fit(self, sequences: np.ndarray, rewards: np.ndarray, episode: int, latest: int | None = None) -> float:
        """Train at the end of an episode.

        Args:
            sequences: (N, 3, 25) encodings of state, global best and previous best, as they were when proposed.
            rewards: (N,) observed, in the order of the episodes.
            episode: from 0; decides the learning rate and the order of the updates.
            latest: number of results of this episode, the last ones; None means all.

        Returns:
            Mean squared error of the last epoch, in the units of the targets.
        """
        if self.training.controller_memory == "episode" and latest is not None:
            sequences, rewards = sequences[-latest:], rewards[-latest:]
        if self.training.controller_targets == "standardised":
            self.mean, self.scale = float(rewards.mean()), float(rewards.std()) or 1.0
        inputs = torch.from_numpy(sequences)
        targets = torch.from_numpy((rewards - self.mean) / self.scale).float()
        rng, total = np.random.default_rng([self.seed, episode]), 0.0
        for epoch in range(self.training.controller_epochs):
            self._set_lr(episode, epoch)
            order = torch.from_numpy(rng.permutation(len(rewards)))
            size = len(rewards) if self.training.controller_update == "episode" else 1
            total = sum(self._update(inputs[picked], targets[picked]) for picked in order.split(size))
        return total / len(rewards)

    def _set_lr(self, episode: int, epoch: int) -> None:
        """The exponential schedule; an epoch counts from 0 within its episode."""
        by_epoch = self.training.controller_decay_each == "epoch"
        decays = episode * self.training.controller_epochs + epoch if by_epoch else episode
        for group in self.optimizer.param_groups:
            group["lr"] = self.training.controller_lr * self.training.controller_lr_decay**decays

    def _update(self, inputs: Tensor, targets: Tensor) -> float:
        """One update on Eq. 3, half the sum of squared errors of some results; returns the sum of squared errors.

        The square of one error has twice the gradient of Eq. 3, as in the recorded comparisons of strategies. RMSProp divides by
        the size of the gradients, so the factor changes little.
        """
        errors = (self.model(inputs) - targets).square().sum()
        loss = errors / 2 if self.training.controller_update == "episode" else errors
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return errors.item()

    def predict(self, sequences: np.ndarray) -> np.ndarray:
        """Expected rewards (N,) float64 of sequences (N, 3, 25), in one pass."""
        with torch.inference_mode():
            scores = self.model(torch.from_numpy(sequences))
        return scores.double().numpy() * self.scale + self.mean
