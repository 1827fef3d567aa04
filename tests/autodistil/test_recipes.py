"""Which nets a family has: depths over several nets, and the published sub-spaces."""

import json
from pathlib import Path

import pytest

from kdnas.autodistil.options import FamilyOptions
from kdnas.autodistil.recipes import PAPER, paper, planned, require_trainable, split
from kdnas.autodistil.sub_space import SubSpace
from kdnas.errors import UsageError
from kdnas.models.teacher import Teacher

PUBLISHED = Path(__file__).resolve().parents[3] / "shared" / "reference" / "kdnas_paper.json"
OPTIONS = FamilyOptions(minutes=30)


def teacher(layers: int, hidden: int = 768) -> Teacher:
    config = {
        "model_type": "bert",
        "vocab_size": 100,
        "max_position_embeddings": 64,
        "num_hidden_layers": layers,
        "num_attention_heads": 12,
        "hidden_size": hidden,
        "intermediate_size": 4 * hidden,
        "hidden_act": "gelu",
    }
    return Teacher("teacher", Path(), config, "digest")


def test_depths_are_divided_over_nets() -> None:
    space = SubSpace("all", "bert", (3, 4, 5, 6, 10), (12,), 384, (96, 384))
    assert [one.layers for one in split(space, 1)] == [(3, 4, 5, 6, 10)]
    assert [one.layers for one in split(space, 3)] == [(3, 4), (5,), (6, 10)]
    assert [one.name for one in split(space, 3)] == ["L3-4-D384", "L5-5-D384", "L6-10-D384"]
    with pytest.raises(UsageError, match="sub_spaces is 6; allowed are 1 to 5"):
        split(space, 6)


def test_nets_take_the_teachers_shape_and_share_the_minutes() -> None:
    nets = planned(teacher(6, 384), OPTIONS, (3, 4, 5), (96, 384), None, None, None, 3)
    assert [space.largest.heads for space, _ in nets] == [12, 12, 12]
    assert {(space.hidden, space.activation, options.minutes) for space, options in nets} == {(384, "gelu", 10)}
    with pytest.raises(UsageError, match="one member only"):
        require_trainable(planned(teacher(6, 384), OPTIONS, (3, 4), (96,), None, None, None, 2), teacher(6))


def test_the_published_method() -> None:
    nets = paper(teacher(12), OPTIONS, ("base", "small", "tiny"))
    require_trainable(nets, teacher(12))
    assert [space.name for space, _ in nets] == ["base", "small", "tiny"]
    assert [str(space.largest) for space, _ in nets] == [
        "12,12,576,2304,gelu",
        "12,10,320,1280,gelu",
        "7,8,224,784,gelu",
    ]
    assert [options.relation_heads for _, options in nets] == [12, 8, 8]
    for _, options in nets:
        assert (options.member_schedule, options.objective, options.teacher_layer) == ("sandwich", "relations", 12)
        assert (options.peak_lr, options.minutes) == (4e-5, 10)
    (only,) = paper(teacher(6), OPTIONS, ("tiny",))
    assert only[0].layers == (4, 5, 6)
    with pytest.raises(UsageError, match="sub-space base has 9 to 12 layers, the teacher 6; use a deeper teacher"):
        paper(teacher(6), OPTIONS, ("base",))


@pytest.mark.skipif(not PUBLISHED.is_file(), reason="the published numbers (../shared/reference) are not available")
def test_the_published_bounds() -> None:
    published = json.loads(PUBLISHED.read_text())["autodistil"]["sub_spaces"]
    assert list(published) == list(PAPER)
    for name, bounds in published.items():
        ours = PAPER[name]
        dividing = {
            width: [heads for heads in bounds["heads"] if width % heads == 0] for width in bounds["hidden_size"]
        }
        assert ours.layers == tuple(bounds["layers"])
        assert ours.ffn_ratios == tuple(bounds["ffn_ratio"])
        assert ours.heads == tuple(dividing[ours.hidden])
        assert ours.hidden == max(dividing, key=lambda width: (len(dividing[width]), width))
