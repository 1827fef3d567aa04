"""Which nets a family has: one from the options, its depths split over several, or those of the paper."""

from dataclasses import dataclass, replace
from itertools import pairwise
from math import gcd

from kdnas.autodistil.options import FamilyOptions
from kdnas.autodistil.schedule import require_schedule
from kdnas.autodistil.sub_space import SubSpace
from kdnas.distill.mapping import require_no_deeper
from kdnas.errors import UsageError
from kdnas.models.family import family_of
from kdnas.models.teacher import Teacher
from kdnas.store.progress import say

Planned = list[tuple[SubSpace, FamilyOptions]]

PAPER_LR, PAPER_WEIGHT_DECAY, PAPER_RELATION_HEADS = 4e-5, 0.01, 12


@dataclass(frozen=True)
class PaperSubSpace:
    """Bounds of a sub-space in the published run files, with one of its hidden sizes.

    A family has one hidden size. It is the one that most of the published numbers of heads divide, the largest of several; only
    these numbers of heads are kept.

    Args:
        layers: depths.
        heads: numbers of attention heads that divide `hidden`.
        hidden: hidden size.
        ffn_ratios: feed-forward sizes divided by `hidden`.
    """

    layers: tuple[int, ...]
    heads: tuple[int, ...]
    hidden: int
    ffn_ratios: tuple[float, ...]


PAPER = {
    "base": PaperSubSpace((9, 10, 11, 12), (9, 12), 576, (2.5, 3.0, 3.5, 4.0)),
    "small": PaperSubSpace((9, 10, 11, 12), (8, 10), 320, (2.5, 3.0, 3.5, 4.0)),
    "tiny": PaperSubSpace((4, 5, 6, 7), (7, 8), 224, (2.0, 2.5, 3.0, 3.5)),
}


def split(space: SubSpace, count: int) -> list[SubSpace]:
    """The sub-space with its depths divided over nets, shallow ones first, each with about equally many depths.

    Raises:
        UsageError: there are more nets than depths.
    """
    if not 1 <= count <= len(space.layers):
        raise UsageError(f"sub_spaces is {count}; allowed are 1 to {len(space.layers)}, the number of depths")
    edges = [round(index * len(space.layers) / count) for index in range(count + 1)]
    groups = [space.layers[start:end] for start, end in pairwise(edges)]
    return [replace(space, name=name_of(group, space.hidden), layers=group) for group in groups]


def name_of(layers: tuple[int, ...], hidden: int) -> str:
    """Name of a sub-space, as in `L3-5-D384`; safe as a folder's name."""
    return f"L{min(layers, default=0)}-{max(layers, default=0)}-D{hidden}"


def planned(
    teacher: Teacher,
    options: FamilyOptions,
    layers: tuple[int, ...],
    ffn: tuple[int, ...],
    heads: tuple[int, ...] | None,
    hidden: int | None,
    activation: str | None,
    sub_spaces: int,
) -> Planned:
    """The nets of a family from its options; each gets an equal part of the minutes.

    Raises:
        UsageError: a value is not allowed, a member is deeper than its teacher, or a net has too few members.
    """
    sizes = teacher.sizes
    width = sizes.hidden if hidden is None else hidden
    whole = SubSpace(
        name_of(layers, width),
        family_of(teacher.config).students.model_type,
        layers,
        (sizes.heads,) if heads is None else heads,
        width,
        ffn,
        sizes.activation if activation is None else activation,
    )
    spaces = split(whole, sub_spaces)
    return [(space, replace(options, minutes=options.minutes / len(spaces))) for space in spaces]


def paper(teacher: Teacher, options: FamilyOptions, names: tuple[str, ...]) -> Planned:
    """The published method: its sub-spaces, sandwich, relations of the last layer, learning rate and weight decay.

    Depths above the teacher's are left out.

    Args:
        teacher: the teacher.
        options: the other options; each net gets an equal part of the minutes.
        names: names in `PAPER`.

    Raises:
        UsageError: a name is unknown or there twice, or all depths of a sub-space are above the teacher's.
    """
    if not names or len(set(names)) < len(names) or not set(names) <= set(PAPER):
        raise UsageError(
            f"paper_sub_spaces is {', '.join(names) or 'empty'}; give one or more different ones of {', '.join(PAPER)}"
        )
    found: Planned = []
    for name in names:
        known = PAPER[name]
        layers = tuple(depth for depth in known.layers if depth <= teacher.layers)
        if not layers:
            raise UsageError(
                f"recipe paper: sub-space {name} has {known.layers[0]} to {known.layers[-1]} layers, the teacher "
                f"{teacher.layers}; use a deeper teacher, or leave it out with --paper-sub-spaces"
            )
        if layers != known.layers:
            say(f"recipe paper: sub-space {name} has only depths up to the teacher's {teacher.layers}")
        ffn = tuple(round(ratio * known.hidden) for ratio in known.ffn_ratios)
        model_type = family_of(teacher.config).students.model_type
        space = SubSpace(name, model_type, layers, known.heads, known.hidden, ffn, teacher.sizes.activation)
        common = gcd(known.hidden, teacher.hidden)
        changed = replace(
            options,
            member_schedule="sandwich",
            objective="relations",
            relations=("QQ", "KK", "VV"),
            relation_heads=max(heads for heads in range(1, PAPER_RELATION_HEADS + 1) if common % heads == 0),
            teacher_layer=teacher.layers,
            peak_lr=PAPER_LR,
            weight_decay=PAPER_WEIGHT_DECAY,
            minutes=options.minutes / len(names),
        )
        found.append((space, changed))
    return found


def require_trainable(nets: Planned, teacher: Teacher) -> None:
    """Check all nets before the corpus is built.

    Raises:
        UsageError: a member is deeper than its teacher, a schedule needs more members, or relation heads do not divide a width.
    """
    for space, options in nets:
        require_no_deeper(space.largest.layers, teacher.layers)
        require_schedule(space, options)
        if options.objective == "relations":
            from kdnas.distill.relation import resolve_relation_heads, resolve_teacher_layer  # takes seconds: torch

            resolve_relation_heads(options.relation_heads, space.hidden, teacher.hidden)
            resolve_teacher_layer(options.teacher_layer, teacher.layers)
