"""What a recording of proxy losses says of the fields, the budgets and the seeds.

Run as `python tests/bench/recorded_losses.py [RECORDING]`; by default the recording of results/search.
"""

import sys
from pathlib import Path
from statistics import mean, stdev

from scipy.stats import kendalltau

from kdnas.models.arch import FIELDS, Arch
from kdnas.search.effects import field_effects
from kdnas.search.recording import Recording, read_recording

DEFAULT = Path(__file__).resolve().parents[2] / "results" / "search" / "proxy-losses.csv"


def means_by(recording: Recording, field: str) -> dict[object, tuple[float, int]]:
    """Mean of the final losses of the first seed, and number of architectures, for each value of a field."""
    groups: dict[object, list[float]] = {}
    for arch in recording.losses:
        groups.setdefault(getattr(arch, field), []).append(recording(arch).loss)
    return {value: (mean(found), len(found)) for value, found in sorted(groups.items(), key=lambda item: str(item[0]))}


def budget_taus(recording: Recording) -> list[tuple[int, float]]:
    """Kendall's tau-b of the first seed's losses after each budget with those after the last one."""
    curves = [list(found[min(found)].items()) for found in recording.losses.values()]
    looks = list(zip(*curves, strict=True))
    last = [loss for _, loss in looks[-1]]
    return [(look[0][0], float(kendalltau([loss for _, loss in look], last).statistic)) for look in looks[:-1]]


def of_both_seeds(recording: Recording) -> list[tuple[Arch, list[float], list[float]]]:
    """Architectures with two seeds, and the losses after each budget of either seed."""
    found = []
    for arch, seeds in recording.losses.items():
        if len(seeds) > 1:
            first, second = (list(seeds[seed].values()) for seed in sorted(seeds)[:2])
            found.append((arch, first, second))
    return found


def main() -> None:
    recording = read_recording(Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT)
    archs = list(recording.losses)
    losses = [recording(arch).loss for arch in archs]
    print(f"{len(archs)} architectures, losses {min(losses):.3f} to {max(losses):.3f}, mean {mean(losses):.3f}")
    effects = field_effects(archs, losses)
    for field in FIELDS:
        for value, (loss, count) in means_by(recording, field).items():
            effect = effects.get(field, {}).get(str(value), 0.0)
            print(f"{field} {value}: mean {loss:.3f} of {count}, with the other fields fixed {effect:+.3f}")
    for tokens, tau in budget_taus(recording):
        print(f"after {tokens:,} tokens: tau with the last budget {tau:.2f}")
    twice = of_both_seeds(recording)
    if len(twice) > 1:
        looks = range(len(twice[0][1]))
        taus = [
            kendalltau([one[1][look] for one in twice], [one[2][look] for one in twice]).statistic for look in looks
        ]
        differences = [abs(first[-1] - second[-1]) for _, first, second in twice]
        print(f"{len(twice)} architectures with two seeds: tau {', '.join(f'{tau:.3f}' for tau in taus)}")
        spread = stdev(first[-1] for _, first, _ in twice)
        print(
            f"final losses differ by {mean(differences):.4f} on average; standard deviation of the losses {spread:.3f}"
        )


if __name__ == "__main__":
    main()
