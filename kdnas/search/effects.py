"""What each value of each field does to a loss or a latency, the other fields being equal."""

from collections.abc import Sequence

import numpy as np

from kdnas.models.arch import Arch
from kdnas.search.choice import fields_of

RIDGE = 0.1  # candidates' worth of doubt for each value: few candidates move an effect little


def field_effects(archs: Sequence[Arch], values: Sequence[float]) -> dict[str, dict[str, float]]:
    """Effects of an additive model that is fitted by ridge regression, each field's of mean 0 over the architectures.

    Args:
        archs: N architectures; empty gives no fields.
        values: N, finite.

    Returns:
        Field to value, as text in the order of the values, to how much more it makes; fields with one value are left out.
    """
    levels = {name: sorted({getattr(arch, name) for arch in archs}) for name in fields_of(archs)}
    levels = {name: found for name, found in levels.items() if len(found) > 1}
    columns = [(name, level) for name, found in levels.items() for level in found]
    if not columns:
        return {}
    design = np.array([[getattr(arch, name) == level for name, level in columns] for arch in archs], dtype=np.float64)
    centred = design - design.mean(0)
    target = np.asarray(values, dtype=np.float64) - np.mean(values)
    found = np.linalg.solve(centred.T @ centred + RIDGE * np.eye(len(columns)), centred.T @ target)
    effects: dict[str, dict[str, float]] = {}
    for name, found_levels in levels.items():
        places = [place for place, column in enumerate(columns) if column[0] == name]
        mean = float(design[:, places].mean(0) @ found[places])
        effects[name] = {
            str(level): float(found[place]) - mean for level, place in zip(found_levels, places, strict=True)
        }
    return effects
