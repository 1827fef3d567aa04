"""Marks of traces: all are distinguishable."""

from kdnas.page.style import COLOURS, mark


def test_first_42_marks_differ_and_then_repeat() -> None:
    many = [mark(index) for index in range(42)]
    assert len(set(many)) == 42
    assert len({(one.colour, one.symbol) for one in many}) == 42
    assert [one.colour for one in many[: len(COLOURS)]] == list(COLOURS)
    assert {(one.dash, one.symbol) for one in many[: len(COLOURS)]} == {("solid", "circle")}
    assert mark(42) == mark(0)


def test_shade() -> None:
    assert mark(0).shade(0.12) == "rgba(0,114,178,0.12)"
