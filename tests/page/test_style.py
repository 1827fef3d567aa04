"""The marks of traces: distinguishable, whatever their number."""

from kdnas.page.style import COLOURS, mark


def test_marks_differ_and_never_run_out() -> None:
    many = [mark(index) for index in range(42)]
    assert len(set(many)) == 42
    assert len({(one.colour, one.symbol) for one in many}) == 42
    assert [one.colour for one in many[: len(COLOURS)]] == list(COLOURS)
    assert {(one.dash, one.symbol) for one in many[: len(COLOURS)]} == {("solid", "circle")}
    assert mark(42) == mark(0)


def test_shade_by_hand() -> None:
    assert mark(0).shade(0.12) == "rgba(0,114,178,0.12)"
