"""The controller: an LSTM that predicts the reward of an architecture (arXiv 2303.09639, section 3)."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from kdnas.models.arch import FIELDS, Arch, SearchSpace

CELLS = 32
GAMMA = 0.95  # factor of the learning rate per episode


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
        """Standardised rewards (N,) of sequences (N, 3, 25)."""
        outputs, _ = self.lstm(sequences)
        return self.head(outputs[:, -1]).squeeze(-1)


class Controller:
    """Learns to predict rewards. The same results in the same order give the same weights.

    RMSProp with one result per update, on all results so far at the end of each episode; the learning rate decays by `GAMMA`
    per episode, the weights are kept from one episode to the next. Rewards lie close together (the paper's between 1.01 and
    1.07), so the targets are standardised by the mean and the standard deviation of all rewards so far; without this, the
    few updates of an episode would only fit the mean.

    Args:
        lr: peak learning rate.
        epochs: passes over all results after each episode.
        seed: seed of the initial weights and the order of the updates.
    """

    def __init__(self, lr: float, epochs: int, seed: int) -> None:
        self.lr, self.epochs, self.seed = lr, epochs, seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = RewardModel()
        self.optimizer = torch.optim.RMSprop(self.model.parameters(), lr=lr)
        self.mean, self.scale = 0.0, 1.0

    def fit(self, sequences: np.ndarray, rewards: np.ndarray, episode: int) -> float:
        """Train on everything evaluated so far, at the end of an episode.

        Args:
            sequences: (N, 3, 25) encodings of state, global best and previous best, as they were when proposed.
            rewards: (N,) observed.
            episode: from 0; decides the learning rate and the order of the updates.

        Returns:
            Mean squared error of the last epoch, in standardised rewards.
        """
        self.mean = float(rewards.mean())
        self.scale = float(rewards.std()) or 1.0
        inputs = torch.from_numpy(sequences)
        targets = torch.from_numpy((rewards - self.mean) / self.scale).float()
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * GAMMA**episode
        rng = np.random.default_rng([self.seed, episode])
        total = 0.0
        for _ in range(self.epochs):
            total = 0.0
            for picked in torch.from_numpy(rng.permutation(len(rewards))).split(1):
                loss = nn.functional.mse_loss(self.model(inputs[picked]), targets[picked])
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                total += loss.item() * len(picked)
        return total / len(rewards)

    def predict(self, sequences: np.ndarray) -> np.ndarray:
        """Expected rewards (N,) float64 of sequences (N, 3, 25), in one pass."""
        with torch.inference_mode():
            scores = self.model(torch.from_numpy(sequences))
        return scores.double().numpy() * self.scale + self.mean
