"""A sub-space: the students that share the weights of one net (arXiv 2201.12507, Section 3).

A sub-space has one hidden size and one activation, because a layer norm over a part of its width is another function. Its members
differ in three ways. Depth: the kept layers nest. Feed-forward size: a member has the first neurons of each layer. Heads: merged
heads regroup the rows of the same matrices. The values need not be those of the published search space.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from kdnas.errors import UsageError
from kdnas.models.arch import Arch
from kdnas.models.family import require_family

NEAREST = 3  # members that an error message names


@dataclass(frozen=True)
class SubSpace:
    """The members of one net.

    Args:
        name: name of the sub-space; the folder of its net.
        model_type: `model_type` of the stock models.
        layers: depths, ascending.
        heads: numbers of attention heads, ascending.
        hidden: width of the hidden states, the same for all members.
        ffn: feed-forward sizes, ascending.
        activation: feed-forward activation, the same for all members.

    Raises:
        UsageError: a list is empty or has a value twice, or a value is not allowed in an architecture.
    """

    name: str
    model_type: str
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    hidden: int
    ffn: tuple[int, ...]
    activation: str = "gelu"

    def __post_init__(self) -> None:
        require_family(self.model_type, f"sub-space {self.name}")
        for field in ("layers", "heads", "ffn"):
            values = getattr(self, field)
            if not values:
                raise UsageError(f"{field} is empty; give at least one value")
            if len(set(values)) < len(values):
                raise UsageError(f"{field} is {', '.join(map(str, values))}: a value is there twice; give each once")
            object.__setattr__(self, field, tuple(sorted(values)))
        for arch in (self.largest, *(Arch(self.layers[0], heads, *self._rest) for heads in self.heads)):
            assert arch.hidden == self.hidden  # the architectures check their values when they are made

    @property
    def _rest(self) -> tuple[int, int, str]:
        return self.hidden, self.ffn[0], self.activation

    @property
    def largest(self) -> Arch:
        """The member whose tensors are those of the net."""
        return Arch(self.layers[-1], self.heads[-1], self.hidden, self.ffn[-1], self.activation)

    @property
    def smallest(self) -> Arch:
        """The member with the smallest value of every field."""
        return Arch(self.layers[0], self.heads[0], *self._rest)

    @cached_property
    def members(self) -> tuple[Arch, ...]:
        """All members, from large to small: by depth, then feed-forward size, then heads."""
        return tuple(
            Arch(layers, heads, self.hidden, ffn, self.activation)
            for layers in reversed(self.layers)
            for ffn in reversed(self.ffn)
            for heads in reversed(self.heads)
        )

    def __contains__(self, arch: object) -> bool:
        return arch in self.members

    def kept(self, depth: int) -> tuple[int, ...]:
        """Layers of the net, 1-based and ascending, that a member of this depth has."""
        return nested_layers(self.layers[-1], depth)

    def to_dict(self) -> dict[str, Any]:
        """The fields for `space.json`, with the kept layers of every depth."""
        fields = ("name", "model_type", "layers", "heads", "hidden", "ffn", "activation")
        return {name: getattr(self, name) for name in fields} | {
            "kept": {str(depth): self.kept(depth) for depth in self.layers}
        }

    @classmethod
    def from_dict(cls, known: dict[str, Any]) -> "SubSpace":
        """Inverse of `to_dict`.

        Raises:
            UsageError: a value is not allowed, or the net was trained with other kept layers.
            KeyError, TypeError, ValueError: the fields are damaged.
        """
        layers, heads, ffn = (tuple(int(value) for value in known[name]) for name in ("layers", "heads", "ffn"))
        space = cls(known["name"], known["model_type"], layers, heads, known["hidden"], ffn, known["activation"])
        if {int(depth): tuple(kept) for depth, kept in known["kept"].items()} != {
            depth: space.kept(depth) for depth in space.layers
        }:
            raise UsageError(
                f"sub-space {space.name}: trained with other kept layers than this version has; train the family again"
            )
        return space


def nested_layers(deepest: int, depth: int) -> tuple[int, ...]:
    """The layers, 1-based, that stay when a net of `deepest` layers loses one layer after the other.

    Each time the layer goes whose two neighbours are closest to each other, the lowest of equal ones; both ends
    stay longest. So each depth has all layers of every smaller depth.

    Args:
        deepest: number of layers of the net.
        depth: number of layers that stay, at least 1.
    """
    kept = list(range(1, deepest + 1))
    while len(kept) > depth:
        inner = range(1, len(kept) - 1)
        gone = min(inner, key=lambda index: kept[index + 1] - kept[index - 1], default=0)
        del kept[gone]
    return tuple(kept)


def nearest(arch: Arch, members: Sequence[Arch]) -> list[Arch]:
    """The members with the most similar number of operations; of equal ones, those with the most equal fields."""

    def distance(member: Arch) -> tuple[float, int]:
        fields = ("layers", "heads", "hidden", "ffn", "activation")
        other = sum(getattr(member, name) != getattr(arch, name) for name in fields)
        return abs(member.flops(32) / arch.flops(32) - 1), other

    return sorted(members, key=distance)[:NEAREST]


def require_member(arch: Arch, spaces: Sequence[SubSpace]) -> SubSpace:
    """The sub-space that an architecture is a member of.

    Raises:
        UsageError: it is in none; the message names the nearest members.
    """
    for space in spaces:
        if arch in space:
            return space
    close = nearest(arch, [member for space in spaces for member in space.members])
    raise UsageError(f"architecture {arch} is not in the family; the nearest members are {'; '.join(map(str, close))}")
