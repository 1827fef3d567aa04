"""The tables of the study of families: hand-worked ratios, rank correlations and break-even."""

import pytest

from ..bench.family_tables import break_even, break_even_table, by_seed, over_seeds, ranks_table, ratios, ways_table

LARGE, SMALL = "5,12,384,1024,gelu", "3,12,384,96,gelu"
LOSSES = {
    ("separate", 0): {LARGE: 0.2, SMALL: 0.4},
    ("separate", 1): {LARGE: 0.3, SMALL: 0.5},
    ("k-per-pass", 0): {LARGE: 0.18, SMALL: 0.36},
    ("k-per-pass", 1): {LARGE: 0.33, SMALL: 0.39},
    ("untrained", 0): {LARGE: 0.9, SMALL: 0.8},
    ("separate-of-1", 0): {LARGE: 0.1, SMALL: 0.3},
}
ROWS = [
    {
        "way": way,
        "seed": str(seed),
        "member": member,
        "loss": str(loss),
        "updates": 10,
        "tokens": 99,
        "train_seconds": 2,
    }
    for (way, seed), losses in LOSSES.items()
    for member, loss in losses.items()
]


def test_ratios_are_of_the_same_seed() -> None:
    found = by_seed(ROWS)
    means, worst = ratios(found["k-per-pass"], found["separate"])
    assert means == pytest.approx([0.9, 0.9])  # 0.54 / 0.6 and 0.72 / 0.8
    assert worst == pytest.approx([0.9, 1.1])
    assert over_seeds(found["separate"]) == pytest.approx({LARGE: 0.25, SMALL: 0.45})
    line = next(line for line in ways_table(ROWS) if line.startswith("| k-per-pass"))
    assert (
        "| 2 | 0.3150 | 0.3750 (3,12,384,96,gelu) | 0.900 [0.900, 0.900] | 1.000 [0.900, 1.100] | 10 | 99 | 2 |" in line
    )


def test_ranks() -> None:
    lines = ranks_table(ROWS)
    assert lines[0] == "| ranks members by | tau with separate |"
    assert "| k-per-pass | 1.000 |" in lines
    assert "| untrained | -1.000 |" in lines
    assert "| parameters | 1.000 |" in lines
    assert "tau with reference" in ranks_table([*ROWS, *({**row, "way": "reference"} for row in ROWS[:2])])[0]


def test_break_even_is_interpolated_between_counts() -> None:
    separate = {1: 0.2, 4: 0.3, 16: 0.5}
    assert break_even(0.25, separate) == pytest.approx(2)  # half of the way from log 1 to log 4
    assert break_even(0.5, separate) == pytest.approx(16)
    assert break_even(0.1, separate) == 1
    assert break_even(0.6, separate) is None
    lines = break_even_table(ROWS)  # one student 0.2, two 0.35, the family 0.315
    assert "| 1 separate students | 0.2000 | |" in lines
    assert "| 2 separate students | 0.3500 | |" in lines
    assert "| k-per-pass | 0.3150 | 1.7 |" in lines
