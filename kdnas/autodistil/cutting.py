"""Which tensors a member has: slices of its net's tensors. Neither torch nor transformers is imported."""

from collections.abc import Mapping
from typing import Any, Protocol, TypeVar, cast

from kdnas.autodistil.sub_space import SubSpace, require_member
from kdnas.models.arch import Arch
from kdnas.models.family import FAMILIES


class Sliceable(Protocol):
    """A tensor of torch, or an array of numpy."""

    def __getitem__(self, index: Any, /) -> Any:
        """A view of a part."""


Array = TypeVar("Array", bound=Sliceable)


def sliced(tensors: Mapping[str, Array], space: SubSpace, arch: Arch) -> dict[str, Array]:
    """The tensors of a member by their names in a stock model of its shape: views, nothing is copied.

    Args:
        tensors: tensors of the net by name, a stock model of the shape `space.largest`; names without a layer are passed on.
        space: the members of the net.
        arch: the member.

    Raises:
        UsageError: the architecture is not a member.
    """
    require_member(arch, [space])
    family = FAMILIES[space.model_type]
    numbers = {layer - 1: index for index, layer in enumerate(space.kept(arch.layers))}
    start, expand, contract = f"{family.layers}.", f"{family.parts['expand']}.", f"{family.parts['contract']}.weight"
    found = {}
    for name, tensor in tensors.items():
        if not name.startswith(start):
            found[name] = tensor
            continue
        number, _, part = name.removeprefix(start).partition(".")
        if int(number) not in numbers:
            continue
        if part.startswith(expand):
            tensor = cast(Array, tensor[: arch.ffn])
        elif part == contract:
            tensor = cast(Array, tensor[:, : arch.ffn])
        found[f"{start}{numbers[int(number)]}.{part}"] = tensor
    return found
