"""Schedules: the same members for ever, each member equally often, and bad values."""

import json
from collections import Counter
from pathlib import Path

import pytest

from kdnas.autodistil.options import FamilyOptions
from kdnas.autodistil.schedule import drawn, members, require_schedule, updates_per_pass
from kdnas.autodistil.sub_space import SubSpace
from kdnas.errors import UsageError

SPACE = SubSpace("golden", "bert", (3, 4, 5), (12,), 384, (96, 384, 1024))
GOLDEN = Path(__file__).with_name("members.json")  # never write it again: resumed runs need the same members


@pytest.mark.parametrize("schedule", ["k-per-pass", "one", "large-to-small", "sandwich"])
def test_members_never_change(schedule: str) -> None:
    known = json.loads(GOLDEN.read_text())
    options = FamilyOptions(member_schedule=schedule, seed=7)
    assert [[str(arch) for arch in members(SPACE, options, step)] for step in range(12)] == known[schedule]


def test_members_of_a_pass_differ_and_all_get_equally_many_updates() -> None:
    options = FamilyOptions(members_per_pass=4)
    counts = Counter[str]()
    for batch in range(900):
        archs = [members(SPACE, options, 4 * batch + index)[0] for index in range(4)]
        assert len(set(archs)) == 4
        counts.update(map(str, archs))
    assert set(counts) == set(map(str, SPACE.members))
    assert all(abs(count - 400) < 4 * (400 * 5 / 9) ** 0.5 for count in counts.values())
    assert updates_per_pass(options) == 4
    assert updates_per_pass(FamilyOptions(member_schedule="one")) == 1


def test_sandwich_has_both_ends_and_two_others() -> None:
    for step in range(30):
        archs = members(SPACE, FamilyOptions(member_schedule="sandwich"), step)
        assert archs[:2] == [SPACE.largest, SPACE.smallest]
        assert len(set(archs)) == 4
    two = SubSpace("two", "bert", (1,), (2,), 48, (8, 16))
    assert members(two, FamilyOptions(member_schedule="sandwich"), 0) == [two.largest, two.smallest]


def test_draws_depend_on_seed_and_number_not_on_the_order() -> None:
    every = SPACE.members
    assert drawn(every, 0, 0) == drawn(every[::-1], 0, 0)
    assert drawn(every, 0, 0) != drawn(every, 1, 0)
    assert drawn(every, 0, 0) != drawn(every, 0, 1)


def test_bad_schedules() -> None:
    one = SubSpace("one", "bert", (3,), (12,), 384, (96,))
    with pytest.raises(UsageError, match="has one member only, 3,12,384,96,gelu; use `kdnas distill --arch"):
        require_schedule(one, FamilyOptions())
    with pytest.raises(UsageError, match="members_per_pass is 10, sub-space golden has 9 members; give at most 9"):
        require_schedule(SPACE, FamilyOptions(members_per_pass=10))
    require_schedule(SPACE, FamilyOptions(members_per_pass=10, member_schedule="one"))
    with pytest.raises(UsageError, match="member_schedule is 'all'; allowed are k-per-pass, one"):
        FamilyOptions(member_schedule="all")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="members_per_pass is 0"):
        FamilyOptions(members_per_pass=0)
