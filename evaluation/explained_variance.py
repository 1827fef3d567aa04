"""Variance that a linear map explains, from sums over batches."""

import torch

# Ridge relative to the mean variance of a hidden dimension: just enough for the exact linear dependence from layer norm.
RIDGE = 1e-8


class LinearFit:
    """Least squares from X (N, D_S) to Y (N, D_T) with an intercept, accumulated over batches in float64.

    Minimises |Y - X W - b|^2 + lambda |W|^2, where lambda is ridge times the mean of the diagonal of the centred X'X.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        self.count = 0
        self.gram = torch.zeros(inputs, inputs, dtype=torch.float64)
        self.cross = torch.zeros(inputs, outputs, dtype=torch.float64)
        self.sum_x = torch.zeros(inputs, dtype=torch.float64)
        self.sum_y = torch.zeros(outputs, dtype=torch.float64)

    def add(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """Add rows: x (N, D_S), y (N, D_T)."""
        x, y = x.double(), y.double()
        self.count += len(x)
        self.gram += x.T @ x
        self.cross += x.T @ y
        self.sum_x += x.sum(0)
        self.sum_y += y.sum(0)

    def solve(self, ridge: float = RIDGE) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight (D_S, D_T) and intercept (D_T,), float64."""
        mean_x, mean_y = self.sum_x / self.count, self.sum_y / self.count
        gram = self.gram - self.count * torch.outer(mean_x, mean_x)
        cross = self.cross - self.count * torch.outer(mean_x, mean_y)
        gram += ridge * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
        weight = torch.linalg.solve(gram, cross)
        return weight, mean_y - mean_x @ weight


class VarianceMeter:
    """Accumulates sums for 1 - (squared error / variance) of blocks of output dimensions."""

    def __init__(self, outputs: int) -> None:
        self.count = 0
        self.error = torch.zeros(outputs, dtype=torch.float64)
        self.sum = torch.zeros(outputs, dtype=torch.float64)
        self.square = torch.zeros(outputs, dtype=torch.float64)

    def add(self, truth: torch.Tensor, predicted: torch.Tensor) -> None:
        """Add rows, both (N, D_T)."""
        truth = truth.double()
        self.count += len(truth)
        self.error += (truth - predicted).square().sum(0)
        self.sum += truth.sum(0)
        self.square += truth.square().sum(0)

    def explained(self, blocks: int) -> list[float]:
        """Explained variance of each of `blocks` equal parts of the outputs: 1 - sum error / sum variance."""
        variance = self.square - self.sum.square() / self.count
        parts = zip(self.error.chunk(blocks), variance.chunk(blocks), strict=True)
        return [float(1 - error.sum() / spread.sum()) for error, spread in parts]
