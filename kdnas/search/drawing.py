"""Which architectures a recording has: drawn at random or spread over the space, and the paper's by name."""

from collections.abc import Sequence

import numpy as np

from kdnas.models.arch import Arch, SearchSpace
from kdnas.search.baselines import SHAPES
from kdnas.search.design import spread

RANDOM = "random"
RECOMMENDED = {  # by the paper's search (its Tables 2 and 3); the third is Piccolo
    "KDNASArch1": Arch(3, 12, 384, 1024),
    "KDNASArch2": Arch(4, 4, 288, 768),
    "KDNASArch3": Arch(4, 12, 576, 768),
}


def drawn(space: SearchSpace, count: int, draw: str, seed: int) -> list[Arch]:
    """Different architectures of a space; the first ones of a draw with the same seed and a smaller count are the same.

    Args:
        space: the space.
        count: how many; all of the space if it has fewer.
        draw: `random` gives each architecture the same chance; `spread` takes the farthest from those before.
        seed: seed of the draw.
    """
    states = list(space)
    if draw == RANDOM:
        return [states[index] for index in np.random.default_rng(seed).permutation(len(states))[:count]]
    return spread(states, count, seed)


def named(space: SearchSpace, teacher: Arch | None) -> dict[Arch, str]:
    """The paper's hand-designed and recommended architectures and the teacher's own shape, if the space has them, by name."""
    shapes = {name.split(",")[0]: arch for name, arch in SHAPES.items()} | RECOMMENDED
    known = {arch: name for name, arch in shapes.items()}
    if teacher is not None:
        known.setdefault(teacher, "teacher's shape")
    return {arch: name for arch, name in known.items() if arch in space}


def origins(archs: Sequence[Arch], others: dict[Arch, str], draw: str) -> dict[Arch, str]:
    """How each architecture came into a recording, in its order: by the draw, or by a name if it was not drawn."""
    return dict.fromkeys(archs, draw) | {arch: name for arch, name in others.items() if arch not in set(archs)}
