"""Splits and orders of tasks."""

import pytest

from kdnas.errors import UsageError
from kdnas.evaluation.rows import Split
from kdnas.evaluation.tasks import Task, normal_form, ordered, position_of


def test_case_and_white_space_do_not_distinguish_texts() -> None:
    assert normal_form("  A\tText \n") == "a text"
    assert position_of("A text", 0) == position_of(" a  TEXT ", 0)
    assert position_of("A text", 0) != position_of("A text", 1)


def test_the_order_does_not_depend_on_the_source() -> None:
    rows = [(f"text {number}", number % 2) for number in range(50)]
    assert ordered(rows, 0) == ordered(rows[::-1], 0)
    assert ordered(rows, 0) != ordered(rows, 1)
    assert ordered(rows, 0).first(3).texts == ordered(rows, 0).texts[:3]


@pytest.mark.parametrize("name", ["train", "dev", "test"])
def test_splits_that_are_too_small_are_refused(name: str) -> None:
    good = {key: Split([f"{key} {n}" for n in range(30)], [0, 1] * 15) for key in ("train", "dev", "test")}
    Task("toy", ["a", "b"], **good).check("file x")
    for bad in (Split(["one"], [0]), Split([f"{n}" for n in range(30)], [1] * 30)):
        with pytest.raises(UsageError, match=f"file x: its {name} split has .* at least .* two classes"):
            Task("toy", ["a", "b"], **(good | {name: bad})).check("file x")
