"""Latency tables of another teacher: rejected, allowed, or unknown."""

from dataclasses import replace
from pathlib import Path

import pytest

from kdnas.errors import UsageError
from kdnas.models.table import LatencyTable
from kdnas.models.table_teacher import is_of_other_teacher, require_teacher
from kdnas.models.teacher import Teacher

BERT = {
    "model_type": "bert",
    "num_hidden_layers": 4,
    "num_attention_heads": 12,
    "hidden_size": 384,
    "intermediate_size": 576,
    "hidden_act": "gelu",
    "vocab_size": 100,
    "max_position_embeddings": 64,
    "type_vocab_size": 2,
}
OURS = Teacher("ours", Path(), BERT, "1" * 64)
OTHER = Teacher("other", Path(), BERT | {"vocab_size": 250002}, "2" * 64)


def table_of(teacher: Teacher, weights: bool = True) -> LatencyTable:
    return LatencyTable((), 8.0, "", "", "", teacher.digest, teacher.spec, teacher.sizes, weights)


def test_the_same_teacher_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    require_teacher(table_of(OURS), OURS, False, "search")
    assert capsys.readouterr().err == ""


def test_another_teacher_is_rejected_with_both_teachers_and_a_command() -> None:
    with pytest.raises(UsageError) as caught:
        require_teacher(table_of(OTHER), OURS, False, "search")
    message = str(caught.value)
    assert "measured with 'other' (L4-H12-D384-F576-gelu, vocabulary 250002, digest 2222222222)" in message
    assert "the teacher is 'ours' (L4-H12-D384-F576-gelu, vocabulary 100, digest 1111111111)" in message
    assert "kdnas latency-table --teacher ours" in message
    assert "--allow-other-teacher true" in message


def test_another_teacher_can_be_allowed(capsys: pytest.CaptureFixture[str]) -> None:
    require_teacher(table_of(OTHER), OURS, True, "search")
    assert "search: the latency table was measured with 'other'" in capsys.readouterr().err


def test_the_same_sizes_with_other_weights_are_another_teacher() -> None:
    tuned = replace(OURS, digest="3" * 64)
    assert is_of_other_teacher(table_of(tuned), OURS)
    assert not is_of_other_teacher(table_of(tuned, weights=False), OURS)  # a shape fits every teacher that has it
    assert is_of_other_teacher(table_of(OTHER, weights=False), OURS)


def test_a_table_without_a_teacher_is_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    require_teacher(LatencyTable((), 8.0), OURS, False, "search")
    assert "does not say with which teacher" in capsys.readouterr().err
