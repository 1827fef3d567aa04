"""Sub-spaces: their members, nested layers, bad values, and their form on disk."""

import json
from itertools import pairwise

import pytest

from kdnas.autodistil.sub_space import SubSpace, nested_layers, require_member
from kdnas.errors import UsageError
from kdnas.models.arch import Arch
from kdnas.store.json_files import json_text

from .family_nets import tiny_space


def test_members_from_large_to_small() -> None:
    space = SubSpace("one", "bert", (5, 3, 4), (12,), 384, (96, 1024, 512))
    assert len(space.members) == 9
    assert space.members[0] == space.largest == Arch(5, 12, 384, 1024)
    assert space.members[-1] == space.smallest == Arch(3, 12, 384, 96)
    assert len(set(space.members)) == 9


@pytest.mark.parametrize("deepest", [1, 2, 5, 12, 24])
def test_kept_layers_nest_and_keep_both_ends(deepest: int) -> None:
    kept = [nested_layers(deepest, depth) for depth in range(1, deepest + 1)]
    assert [len(layers) for layers in kept] == list(range(1, deepest + 1))
    assert all(set(one) < set(other) for one, other in pairwise(kept))
    assert all((layers[0], layers[-1]) == (1, deepest) for layers in kept[1:])
    assert kept[0] == (deepest,) or deepest == 1


def test_kept_layers_never_change() -> None:
    assert nested_layers(5, 4) == (1, 3, 4, 5)
    assert nested_layers(5, 3) == (1, 3, 5)
    assert nested_layers(12, 6) == (1, 3, 5, 7, 9, 12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": ()}, "layers is empty"),
        ({"ffn": (8, 8)}, "ffn is 8, 8: a value is there twice"),
        ({"heads": (5,)}, "5 heads do not divide hidden size 48"),
        ({"layers": (0, 2)}, "layers is 0"),
        ({"activation": "tanh"}, "activation must be one of"),
        ({"model_type": "t5"}, "its model_type is 't5'"),
    ],
)
def test_bad_values(change: dict, message: str) -> None:
    values = {"layers": (1, 2), "heads": (2,), "ffn": (8, 16), "activation": "gelu", "model_type": "bert"} | change
    with pytest.raises(UsageError, match=message):
        SubSpace(name="bad", hidden=48, **values)


def test_the_nearest_members_are_named() -> None:
    space = SubSpace("one", "bert", (3, 4, 5), (12,), 384, (96, 384, 1024))
    with pytest.raises(UsageError, match="the nearest members are 4,12,384,384,gelu; "):
        require_member(Arch(4, 12, 384, 400), [space])
    assert require_member(Arch(3, 12, 384, 96), [space]) is space


def test_space_on_disk() -> None:
    space = tiny_space()
    known = json.loads(json_text(space.to_dict()))
    assert SubSpace.from_dict(known) == space
    with pytest.raises(UsageError, match="other kept layers"):
        SubSpace.from_dict(known | {"kept": {"1": [1], "3": [1, 2, 3], "4": [1, 2, 3, 4], "5": [1, 2, 3, 4, 5]}})
