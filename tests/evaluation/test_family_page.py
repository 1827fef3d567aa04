"""The page of a family with the retention of its members, on made-up results."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from kdnas.autodistil.page import affordable
from kdnas.errors import UsageError
from kdnas.evaluation.compare import FAMILY_PAGE, compare_suites
from kdnas.models.teacher import Teacher

from ..autodistil.family_nets import tiny_net, tiny_space, untrained_family
from .test_compare import results

DIGESTS = {"teacher": "a" * 64, "L5-H6-D48-F96-gelu": "b" * 64, "L1-H2-D48-F8-gelu": "c" * 64, "other": "d" * 64}
SCORES = {"teacher": 0.8, "L5-H6-D48-F96-gelu": 0.76, "L1-H2-D48-F8-gelu": 0.6, "other": 0.5}


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    """A home with the scores of a teacher, two members and another model."""
    for name, digest in DIGESTS.items():
        results(tmp_path, digest, {("glue/sst2", 0): SCORES[name]}, model={"name": name, "architecture": name})
    return tmp_path


@pytest.fixture
def family(tmp_path: Path, teacher: Teacher) -> Path:
    space = tiny_space()
    return untrained_family(tmp_path / "family", space, tiny_net(space), teacher.path).path


def figures(page: Path) -> dict[str, Any]:
    found = re.findall(r'class="figure" data-target="chart-(\w+)">(.*?)</script>', page.read_text(), re.S)
    return {name: json.loads(text) for name, text in found}


def test_retention_of_the_scored_members_is_drawn(scored: Path, family: Path) -> None:
    compare_suites(tuple(DIGESTS.values()), family=family, home=scored)
    drawn = figures(scored / FAMILY_PAGE)
    points = [(x, y) for trace in drawn["retention"]["data"] for x, y in zip(trace["x"], trace["y"], strict=True)]
    assert sorted(y for _, y in points) == pytest.approx([0.75, 0.95])
    assert sum(len(trace["x"]) for trace in drawn["family"]["data"]) == len(tiny_space().members)
    text = (scored / FAMILY_PAGE).read_text()
    assert "95.0\N{NO-BREAK SPACE}%" in text
    assert "http://" not in text.split("<body>")[1].split("<script")[0]


def test_models_that_are_no_members(scored: Path, family: Path) -> None:
    with pytest.raises(UsageError, match=r"none of the models is a member of .*: other \(other\)"):
        compare_suites((DIGESTS["teacher"], DIGESTS["other"]), family=family, home=scored)
    with pytest.raises(UsageError, match="no finished artifact here"):
        compare_suites(tuple(DIGESTS.values()), family=scored, home=scored)
    assert not (scored / FAMILY_PAGE).exists()


def test_members_and_teacher_without_a_shared_task(scored: Path, family: Path) -> None:
    results(scored, "e" * 64, {("glue/rte", 0): 0.8}, model={"name": "t", "architecture": "t"})
    with pytest.raises(UsageError, match="no member has results of a task that t has"):
        compare_suites(("e" * 64, DIGESTS["L5-H6-D48-F96-gelu"]), family=family, home=scored)


def test_the_slider_knows_the_retention() -> None:
    rows = [
        {"member": "a", "latency_ms": 2.0, "loss": 0.1, "retention": 0.9},
        {"member": "b", "latency_ms": 1.0, "loss": 0.2, "retention": None},
    ]
    assert [(row["arch"], row["retention"]) for row in affordable(rows)] == [("b", None), ("a", 0.9)]
