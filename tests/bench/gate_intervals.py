"""Which interval should the gate decide by? A simulation of comparisons, not a measurement.

Run as `python tests/bench/gate_intervals.py [TRIALS [FILE.csv]]`; by default 40000 comparisons for each row. Each comparison has
up to 40 pairs. The gate's rule decides on one of 10 benchmarks, so 0.5 % is allotted to each kind of error. The methods differ
only in the interval of the paired log ratios; the noise of the host has the gate's own interval in all of them.

- order: order statistics, as in `gates/intervals.py`. The looks share the allotted error exactly.
- t: interval of the mean by Student's t distribution. Each look has an equal part of the allotted error.
- signed-rank: interval of the pseudo-median by Wilcoxon's signed-rank test (Hodges and Lehmann). Equal parts, too.

The noise of a process's log time is normal, heavy (t, 3 degrees of freedom) or skewed (lognormal) on both sides alike, or skewed
on one side while the other has none. Noise that is alike makes the log ratios symmetric; noise of one side makes them skewed. All
are scaled to the same median of the absolute log ratio of a pair. The true median ratio is exactly 1 plus the slowdown. Prints a
table and writes FILE.
"""

import csv
import itertools
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from kdnas.gates.decision import NOISE_ALPHA, WIDENING, Rule
from kdnas.gates.intervals import ranks

TRIALS = 40_000
BENCHMARKS = 10
SLOWDOWNS = (0.0, 0.05, 0.10)
SCALES = (0.02, 0.04)  # median of the absolute log ratio of a pair; 0.02 is a host of results/gates
PAIRS = 40
LOOKS = ((8, 14, 24, 40), (10, 16, 24, 40), (10, 14, 20, 28, 40))
Noise = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]
Hosts = dict[int, tuple[np.ndarray, np.ndarray]]


def normal(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return rng.normal(size=shape)


def heavy(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return rng.standard_t(3, shape)


def skewed(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return rng.lognormal(size=shape) - 1  # its median is 0


def none(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return np.zeros(shape)


NOISES: dict[str, tuple[Noise, Noise]] = {  # base, head
    "normal": (normal, normal), "heavy": (heavy, heavy), "skewed": (skewed, skewed),
    "skewed base": (skewed, none), "skewed head": (none, skewed),
}  # fmt: skip


def pairs_of_noise(noise: str, scale: float, trials: int) -> tuple[np.ndarray, np.ndarray]:
    """As `kdnas.gates.decision.pairs_of` for unchanged code: log ratios, (trials, PAIRS), and neighbours, (trials, PAIRS - 1)."""
    rng = np.random.default_rng(7)
    base, head = (one(rng, (trials, PAIRS)) for one in NOISES[noise])
    ratios = head - base
    # The order A B | B A | A B: neighbours are B B, A A, B B and so on.
    same = np.where(np.arange(PAIRS - 1) % 2 == 0, np.diff(head, axis=1), np.diff(base, axis=1))
    factor = scale / np.median(np.abs(ratios))
    return factor * ratios, factor * same


def hosts_of(same: np.ndarray, rule: Rule) -> Hosts:
    """For each number of pairs at a look: log thresholds, (trials,), and whether the host is fit, (trials,)."""
    found = {}
    for look in sorted({look for looks in LOOKS for look in looks}):
        neighbours = np.sort(same[:, : look - 1], axis=1)
        rank = ranks((look - 1,), NOISE_ALPHA, 1)[-1]
        thresholds = np.maximum(rule.least, WIDENING * (neighbours[:, -rank] - neighbours[:, rank - 1]) / 2)
        limits = np.log1p(thresholds)
        found[look] = limits, (thresholds <= rule.most) & (np.abs(np.median(neighbours, axis=1)) <= limits)
    return found


def t_quantile(alpha: float, freedom: int) -> float:
    """The value that Student's t exceeds with probability `alpha`."""
    # With t = sqrt(freedom) * tan(angle), the density of the angle is proportional to cos(angle) ** (freedom - 1).
    angles = np.linspace(0, math.pi / 2, 200_001)
    density = np.cos(angles) ** (freedom - 1)
    mass = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return math.sqrt(freedom) * math.tan(float(np.interp(1 - 2 * alpha, mass / mass[-1], angles)))


def signed_rank_quantile(alpha: float, count: int) -> int:
    """The least c for which P(sum of the positive ranks of `count` values >= c) <= alpha."""
    chances = np.ones(1)
    for rank in range(1, count + 1):
        chances = (np.pad(chances, (0, rank)) + np.pad(chances, (rank, 0))) / 2
    above = np.cumsum(chances[::-1])[::-1]
    return int(np.sum(above > alpha))


Above = Callable[[np.ndarray, np.ndarray], np.ndarray]


def by_order(looks: tuple[int, ...], alpha: float) -> list[Above]:
    """For each look: does the interval of each row of values lie above the row's limit?"""

    def test(rank: int) -> Above:
        return lambda values, limits: (values <= limits[:, None]).sum(1) < rank

    return [test(rank) for rank in ranks(looks, alpha, len(looks))]


def by_t(looks: tuple[int, ...], alpha: float) -> list[Above]:
    """As `by_order`, with the t interval."""

    def test(critical: float) -> Above:
        return lambda values, limits: (
            values.mean(1) - critical * values.std(1, ddof=1) / math.sqrt(values.shape[1]) > limits
        )

    return [test(t_quantile(alpha / len(looks), look - 1)) for look in looks]


def by_signed_rank(looks: tuple[int, ...], alpha: float) -> list[Above]:
    """As `by_order`, with the interval of the signed-rank test."""

    def test(critical: int) -> Above:
        def above(values: np.ndarray, limits: np.ndarray) -> np.ndarray:
            moved = values - limits[:, None]
            ordered = np.take_along_axis(moved, np.argsort(np.abs(moved), axis=1), axis=1)
            return (ordered > 0) @ np.arange(1, moved.shape[1] + 1) >= critical

        return above

    return [test(signed_rank_quantile(alpha / len(looks), look)) for look in looks]


METHODS = {"order": by_order, "t": by_t, "signed-rank": by_signed_rank}


def outcomes(ratios: np.ndarray, hosts: Hosts, method: str, rule: Rule) -> dict[str, float]:
    """Fractions of comparisons that end slower and not slower, and their mean number of pairs; `ratios` is (trials, PAIRS)."""
    pairs = np.full(len(ratios), rule.looks[-1])
    counts = {"slower": 0, "ok": 0}
    active = np.arange(len(ratios))
    tests = METHODS[method](rule.looks, rule.alpha / BENCHMARKS)
    for look, above in zip(rule.looks, tests, strict=True):
        limits, fit = (each[active] for each in hosts[look])
        values = ratios[active, :look]
        slower = fit & above(values, limits)
        ok = fit & ~slower & above(-values, np.full(len(active), -np.log1p(rule.least)))
        counts["slower"] += int(slower.sum())
        counts["ok"] += int(ok.sum())
        pairs[active[slower | ok]] = look
        active = active[~(slower | ok)]
    return {**{name: count / len(ratios) for name, count in counts.items()}, "pairs": float(pairs.mean())}


def simulated(trials: int) -> list[dict[str, Any]]:
    """One row for each noise, scale, method and looks."""
    rows = []
    for noise, scale in itertools.product(NOISES, SCALES):
        ratios, same = pairs_of_noise(noise, scale, trials)
        hosts = hosts_of(same, Rule())
        for method, looks in itertools.product(METHODS, LOOKS):
            none, limit, slow = (
                outcomes(ratios + np.log1p(slowdown), hosts, method, Rule(looks=looks)) for slowdown in SLOWDOWNS
            )
            rows.append(
                {
                    "noise": noise, "scale": scale, "method": method, "looks": "-".join(map(str, looks)),
                    "false_ok_at_5": limit["ok"], "regression_at_5": limit["slower"],
                    "false_regression_at_0": none["slower"], "regression_at_10": slow["slower"],
                    "false_ok_at_10": slow["ok"], "ok_at_0": none["ok"], "pairs_at_0": none["pairs"],
                    "pairs_at_10": slow["pairs"],
                }
            )  # fmt: skip
    return rows


def main(trials: int, file: Path | None) -> None:
    """Simulate, print, and write the file."""
    rows = [
        {name: value if isinstance(value, str) else f"{value:.5g}" for name, value in row.items()}
        for row in simulated(trials)
    ]
    for cells in [rows[0], ["---"] * len(rows[0]), *(row.values() for row in rows)]:
        print(f"| {' | '.join(cells)} |")
    if file is not None:
        with file.open("w", newline="") as out:
            writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else TRIALS, Path(sys.argv[2]) if len(sys.argv) > 2 else None)
