"""How well the losses of short distillations rank architectures: Kendall's tau against long losses and task scores.

A search must tell good architectures from each other. Tau over all of them is easily high, because bad ones are easily told
from good ones; so it is also computed within the third that is best after long distillation.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, variance
from typing import Any

import numpy as np

DRAWS = 2000  # bootstrap samples over architectures
LOSS = "loss"  # name of the long loss among the targets
TAU_COLUMNS = ("tokens", "against", "tau", "low", "high", "best_third_tau", "best_third_low", "best_third_high")


def rankings(
    short: Mapping[int, np.ndarray], targets: Mapping[str, np.ndarray], target: float, seed: int
) -> dict[str, Any]:
    """Kendall's tau-b of each budget's losses against each target, with 95 % intervals.

    Args:
        short: losses (N,) after each budget in tokens.
        targets: values (N,) of which small is good: `loss`, the long losses, and negated scores by task.
        target: minimum tau of a sufficient budget.
        seed: seed of the bootstrap.

    Returns:
        `taus`, a row for each pair, with tau over all architectures and within the best third; `best_third`, the number of
        architectures in it; `cheapest_tokens`, the smallest budget whose interval against the long losses begins at the
        target or above, or None.
    """
    best = best_third(targets[LOSS])
    rows: list[dict[str, Any]] = []
    for tokens, losses in short.items():
        for name, values in targets.items():
            whole = tau_with_interval(losses, values, seed)
            within = tau_with_interval(losses[best], values[best], seed)
            rows.append(dict(zip(TAU_COLUMNS, (tokens, name, *whole, *within), strict=True)))
    good = [row["tokens"] for row in rows if row["against"] == LOSS and row["low"] >= target]
    return {"taus": rows, "best_third": len(best), "cheapest_tokens": min(good, default=None)}


def best_third(losses: np.ndarray) -> np.ndarray:
    """Indices of the third with the lowest losses (N,), rounded up; ties in their order."""
    return np.argsort(losses, kind="stable")[: math.ceil(len(losses) / 3)]


def tau_with_interval(one: np.ndarray, other: np.ndarray, seed: int) -> tuple[float, float, float]:
    """Kendall's tau-b of two rankings (N,), and the 2.5th and 97.5th percentile of a bootstrap over their N entries.

    Tau-b is 0 where it is undefined, because all values of one side are equal.
    """
    size = len(one)
    drawn = np.random.default_rng(seed).integers(0, size, (DRAWS, size))
    times = np.stack([np.ones(size), *(np.bincount(row, minlength=size) for row in drawn)])  # each entry in each sample
    first, second = (np.sign(np.subtract.outer(values, values)) for values in (one, other))

    def pairs(signs: np.ndarray) -> np.ndarray:
        """Sum over the ordered pairs of entries of each sample (1 + DRAWS,)."""
        return np.einsum("sn,sn->s", times @ signs, times)

    untied = np.sqrt(pairs(np.abs(first)) * pairs(np.abs(second)))
    taus = np.divide(pairs(first * second), untied, out=np.zeros(len(times)), where=untied > 0)
    low, high = np.percentile(taus[1:], (2.5, 97.5))
    return float(taus[0]), float(low), float(high)


def seed_noise(scores: Sequence[Mapping[str, Sequence[float]]]) -> dict[str, Any]:
    """How much each task's score differs between seeds of fine-tuning.

    Args:
        scores: task to the score of each seed, for each architecture.

    Returns:
        Task to the standard deviation over the seeds, pooled over the architectures; `one seed` if there is no second one.
    """
    found: dict[str, Any] = {}
    for task in scores[0] if scores else ():
        several = [variance(one[task]) for one in scores if len(one[task]) > 1]
        found[task] = math.sqrt(mean(several)) if several else "one seed"
    return found


def read_table(file: Path) -> tuple[dict[int, np.ndarray], dict[str, np.ndarray]]:
    """Short losses by budget and targets, as `rankings` takes them, from the `fidelity.csv` of `kdnas fidelity`."""
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    short = {
        int(name.removeprefix("loss ")): np.array(values, dtype=np.float64)
        for name, values in columns.items()
        if name.startswith("loss ")
    }
    scores = {
        name.removeprefix("score "): -np.array(values, dtype=np.float64)
        for name, values in columns.items()
        if name.startswith("score ")
    }
    return short, {LOSS: np.array(columns[LOSS], dtype=np.float64), **scores}


def write_taus(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the rows of `rankings` as CSV."""
    with file.open("w", newline="") as written:
        table = csv.DictWriter(written, TAU_COLUMNS, lineterminator="\n")
        table.writeheader()
        for row in rows:
            table.writerow({name: f"{value:.4f}" if isinstance(value, float) else value for name, value in row.items()})


def recompute(folder: Path, target: float = 0.8, seed: int = 0) -> dict[str, Any]:
    """Rankings of a finished table without training: reads `fidelity.csv` in a folder, writes `fidelity-tau.csv` beside it."""
    found = rankings(*read_table(folder / "fidelity.csv"), target, seed)
    write_taus(folder / "fidelity-tau.csv", found["taus"])
    return found
