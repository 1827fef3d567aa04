"""Mappings of student layers to teacher layers against hand-computed values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdnas.distill.mapping import Mapping, layer_pairs
from kdnas.errors import UsageError

UNIFORM_OF_12 = {
    3: [1, 5, 9],
    4: [1, 4, 7, 10],
    6: [1, 3, 5, 7, 9, 11],
    10: [1, 2, 3, 4, 5, 7, 8, 9, 10, 11],
    12: list(range(1, 13)),
}
UNIFORM_OF_6 = {3: [1, 3, 5], 4: [1, 2, 4, 5], 6: [1, 2, 3, 4, 5, 6]}


def targets(student_layers: int, teacher_layers: int, mapping: Mapping) -> list[int]:
    return [teacher for _, teacher in layer_pairs(student_layers, teacher_layers, mapping)]


@pytest.mark.parametrize(("student_layers", "expected"), UNIFORM_OF_12.items())
def test_uniform_mapping_to_12_teacher_layers(student_layers: int, expected: list[int]) -> None:
    assert targets(student_layers, 12, Mapping.UNIFORM) == expected


@pytest.mark.parametrize(("student_layers", "expected"), UNIFORM_OF_6.items())
def test_uniform_mapping_to_6_teacher_layers(student_layers: int, expected: list[int]) -> None:
    assert targets(student_layers, 6, Mapping.UNIFORM) == expected


@pytest.mark.parametrize("student_layers", [3, 4, 6, 12])
def test_uniform_mapping_equals_the_published_formula_where_that_is_valid(student_layers: int) -> None:
    stride = -(-12 // student_layers)
    assert targets(student_layers, 12, Mapping.UNIFORM) == [(i - 1) * stride + 1 for i in range(1, student_layers + 1)]


def test_last_and_last_1_mappings() -> None:
    assert targets(4, 12, Mapping.LAST) == [9, 10, 11, 12]
    assert layer_pairs(4, 12, Mapping.LAST_1) == [(4, 12)]  # Appendix A: one pair
    assert layer_pairs(6, 6, Mapping.LAST_1) == [(6, 6)]


def test_uniform_last_maps_each_student_layer_to_two_teacher_layers() -> None:
    assert layer_pairs(3, 12, Mapping.UNIFORM_LAST) == [(1, 1), (1, 10), (2, 5), (2, 11), (3, 9), (3, 12)]
    assert layer_pairs(3, 6, Mapping.UNIFORM_LAST) == [(1, 1), (1, 4), (2, 3), (2, 5), (3, 5), (3, 6)]


def test_duplicate_targets_are_removed() -> None:
    assert layer_pairs(6, 6, Mapping.UNIFORM_LAST) == [(i, i) for i in range(1, 7)]
    assert (10, 11) in layer_pairs(10, 12, Mapping.UNIFORM_LAST)
    assert len(set(layer_pairs(10, 12, Mapping.UNIFORM_LAST))) == len(layer_pairs(10, 12, Mapping.UNIFORM_LAST))


@given(st.integers(1, 30), st.integers(0, 30), st.sampled_from(Mapping))
def test_every_student_layer_has_a_valid_teacher_layer(student: int, more: int, mapping: Mapping) -> None:
    pairs = layer_pairs(student, student + more, mapping)
    mapped = {student} if mapping is Mapping.LAST_1 else set(range(1, student + 1))
    assert {layer for layer, _ in pairs} == mapped
    assert all(1 <= target <= student + more for _, target in pairs)


@pytest.mark.parametrize("mapping", Mapping)
def test_student_deeper_than_its_teacher_is_rejected(mapping: Mapping) -> None:
    with pytest.raises(UsageError, match=r"student has 10 layers, its teacher 6"):
        layer_pairs(10, 6, mapping)
