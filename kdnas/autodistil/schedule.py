"""Which members an update trains: a function of the seed and the update only, so a resumed run trains the same ones."""

import hashlib
from collections.abc import Sequence

from kdnas.autodistil.options import FamilyOptions
from kdnas.autodistil.sub_space import SubSpace
from kdnas.errors import UsageError
from kdnas.models.arch import Arch

SANDWICH_RANDOM = 2  # random members of the published schedule, beside the largest and the smallest


def updates_per_pass(options: FamilyOptions) -> int:
    """Number of updates on each batch, for which the teacher runs once."""
    return options.members_per_pass if options.member_schedule == "k-per-pass" else 1


def members(space: SubSpace, options: FamilyOptions, step: int) -> list[Arch]:
    """The members whose gradients an update adds up.

    Args:
        space: the sub-space.
        options: schedule and seed.
        step: 0-based update.
    """
    every = space.members
    match options.member_schedule:
        case "sandwich":
            inner = [arch for arch in every if arch not in (space.largest, space.smallest)]
            return [space.largest, space.smallest, *drawn(inner, options.seed, step)[:SANDWICH_RANDOM]]
        case "large-to-small":
            return [every[step % len(every)]]
        case "one":
            return drawn(every, options.seed, step)[:1]
        case "k-per-pass":
            batch, index = divmod(step, options.members_per_pass)
            return [drawn(every, options.seed, batch)[index]]


def drawn(archs: Sequence[Arch], seed: int, draw: int) -> list[Arch]:
    """Architectures in a random order. It comes from a hash, so no version of a library changes it.

    Args:
        archs: architectures, in any order.
        seed: seed of the run.
        draw: number of the draw.
    """
    return sorted(archs, key=lambda arch: hashlib.sha256(f"{seed} {draw} {arch}".encode()).digest())


def require_schedule(space: SubSpace, options: FamilyOptions) -> None:
    """Check that a sub-space has enough members for its schedule.

    Raises:
        UsageError: it has one member only, or fewer than are trained on a batch.
    """
    count = len(space.members)
    if count == 1:
        raise UsageError(
            f"sub-space {space.name} has one member only, {space.largest}; use `kdnas distill --arch {space.largest}`"
        )
    if options.member_schedule == "k-per-pass" and options.members_per_pass > count:
        raise UsageError(
            f"members_per_pass is {options.members_per_pass}, sub-space {space.name} has {count} members; give at most {count}"
        )
