"""The effect of each value of each field on a loss or a latency, with the other fields fixed."""

from collections.abc import Sequence

import numpy as np

from kdnas.models.arch import FIELDS, Arch

RIDGE = 0.1  # prior weight of a zero effect, in candidates


def field_effects(archs: Sequence[Arch], values: Sequence[float]) -> dict[str, dict[str, float]]:
    """Effects of an additive model fitted by ridge regression; each field's effects have mean 0 over the architectures.

    Args:
        archs: N architectures; without any, the result is empty.
        values: N, finite.

    Returns:
        Field to value (as text, in order) to effect; fields with a single value are left out.
    """
    levels = {name: sorted({getattr(arch, name) for arch in archs}) for name in FIELDS}
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
        indices = [index for index, column in enumerate(columns) if column[0] == name]
        mean = float(design[:, indices].mean(0) @ found[indices])
        effects[name] = {
            str(level): float(found[index]) - mean for level, index in zip(found_levels, indices, strict=True)
        }
    return effects
