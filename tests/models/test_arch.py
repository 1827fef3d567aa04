import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdnas.errors import UsageError
from kdnas.models.arch import Arch, SearchSpace, arch_from_id, arch_id


def test_the_space_has_2400_architectures_in_a_fixed_order() -> None:
    archs = list(SearchSpace())
    assert len(SearchSpace()) == len(archs) == len(set(archs)) == 2400
    # Ids in published tables must never change.
    assert str(archs[0]) == "3,2,288,384,gelu"
    assert str(archs[1]) == "3,2,288,384,relu"
    assert str(archs[3]) == "3,2,288,512,gelu"
    assert str(archs[921]) == "4,12,576,768,gelu"
    assert str(archs[2399]) == "12,12,768,3072,silu"


@given(st.integers(0, 2399))
def test_arch_id_and_arch_from_id_are_inverse(index: int) -> None:
    arch = arch_from_id(index)
    assert arch_id(arch) == index
    assert Arch.parse(str(arch)) == arch


def test_ids_follow_the_iteration_order() -> None:
    assert [arch_id(arch) for arch in SearchSpace()] == list(range(2400))


def test_subspace_keeps_ids_and_order() -> None:
    cut = SearchSpace(layers=(6, 3), hidden=(768,), activation=("silu",))
    archs = list(cut)
    assert cut.layers == (3, 6)  # the published order, not the given one
    assert len(cut) == len(archs) == 2 * 5 * 8
    assert [arch_id(arch) for arch in archs] == sorted(arch_id(arch) for arch in archs)
    assert all(arch in SearchSpace() and arch in cut for arch in archs)
    assert Arch(4, 2, 768, 384, "silu") not in cut


def test_teachable_excludes_students_deeper_than_the_teacher() -> None:
    assert SearchSpace().teachable(6).layers == (3, 4, 6)
    with pytest.raises(UsageError, match="deeper than its teacher of 2 layers"):
        SearchSpace().teachable(2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("4,12,576,768", "write layers,heads,hidden,ffn,activation"),
        ("4,twelve,576,768,gelu", "write layers"),
        ("4,7,576,768,gelu", "7 heads do not divide hidden size 576; valid head counts: 1, 2, 3, 4, 6, 8, 9, 12"),
        ("4,12,576,768,tanh", "activation must be one of gelu, relu, silu"),
        ("0,12,576,768,gelu", "layers is 0"),
    ],
)
def test_invalid_architectures_are_reported(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Arch.parse(text)


def test_invalid_spaces_and_ids_are_reported() -> None:
    with pytest.raises(UsageError, match=r"space.hidden has \[100\]; choose from \[288, 384, 576, 768\]"):
        SearchSpace(hidden=(100,))
    with pytest.raises(UsageError, match=r"space\.layers is empty"):
        SearchSpace(layers=())
    with pytest.raises(UsageError, match="not among the 2400"):
        arch_id(Arch(5, 2, 288, 384))
    with pytest.raises(UsageError, match="0 to 2399"):
        arch_from_id(2400)


def test_layer_parameters_equal_those_of_the_model() -> None:
    from transformers import BertConfig

    from kdnas.models.student import new_student

    arch = Arch(3, 6, 288, 512, "relu")
    model = new_student(arch, BertConfig())
    assert sum(weight.numel() for weight in model.encoder.parameters()) == arch.layer_parameters


def test_flops_equal_a_hand_computed_value() -> None:
    # 1 layer, width 2, ffn 3, 5 tokens: projections 4*2*2 + 2*2*3 = 28 per token, attention 2*5*2 = 20 per token.
    assert Arch(1, 1, 2, 3).flops(5) == 2 * 5 * (28 + 20)


def test_space_equals_the_published_one(shared_data: Path) -> None:
    paper = json.loads((shared_data.parent / "reference" / "kdnas_paper.json").read_text())["search_space"]
    space = SearchSpace()
    assert list(space.layers) == paper["hidden_layers"]
    assert list(space.heads) == paper["attention_heads"]
    assert list(space.hidden) == paper["hidden_size"]
    assert list(space.ffn) == paper["intermediate_size"]
    assert list(space.activation) == paper["hidden_activation"]
