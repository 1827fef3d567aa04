"""Latencies of members from a table, and what a budget selects; tables of other hosts and teachers."""

from dataclasses import replace
from pathlib import Path

import pytest

from kdnas.autodistil.extract import extract, within
from kdnas.autodistil.family import Family
from kdnas.autodistil.latency import FITTED, TABLE, latencies, require_table
from kdnas.autodistil.page import affordable
from kdnas.autodistil.sub_space import SubSpace
from kdnas.errors import UsageError
from kdnas.models.arch import Arch
from kdnas.models.table import LatencyTable
from kdnas.models.teacher import Teacher
from kdnas.store.host import host, host_name

from ..latency.table_fixture import law_ms, law_rows, table_artifact

SPACE = SubSpace("L3-5-D384", "bert", (3, 4, 5), (12,), 384, (96, 384, 1024))


def table(**changes: object) -> LatencyTable:
    return replace(LatencyTable(tuple(law_rows()), 8.0), **changes)


def family(losses: dict[str, float]) -> Family:
    rows = {arch: {"loss": losses.get(str(arch), 0.5)} for arch in SPACE.members}
    return Family(Path("family"), (SPACE,), Teacher("t", Path(), {}, "digest"), rows)


def test_members_outside_the_table_are_fitted_to_its_rows() -> None:
    found = latencies(table(), SPACE.members)
    for arch in SPACE.members:  # the simulated host follows the fitted form exactly
        inside = arch.layers in (3, 4) and arch.ffn >= 384
        assert found[arch].source == (TABLE if inside else FITTED)
        assert found[arch].ms == pytest.approx(law_ms(arch), rel=1e-6)
    with pytest.raises(UsageError, match="the latency table has no rows with 12 heads, hidden size 480"):
        latencies(table(), [Arch(3, 12, 480, 384)])


def test_a_budget_selects_the_lowest_loss_that_fits() -> None:
    one = family({"4,12,384,96,gelu": 0.3, "5,12,384,1024,gelu": 0.1})
    times = {arch: law_ms(arch) for arch in SPACE.members}
    assert within(one, 100.0, times) == Arch(5, 12, 384, 1024)
    assert within(one, law_ms(Arch(4, 12, 384, 96)), times) == Arch(4, 12, 384, 96)
    assert within(one, law_ms(Arch(3, 12, 384, 96)), times) == SPACE.smallest
    with pytest.raises(UsageError, match=r"budget_ms is 0.01: no member .* the fastest is 3,12,384,96,gelu with"):
        within(one, 0.01, times)


def test_tables_of_another_host_or_teacher() -> None:
    teacher = Teacher("mine", Path(), {"model_type": "bert"}, "digest")
    require_table(table(teacher="digest", host=host_name(host())), teacher, False, False, "extract")
    with pytest.raises(UsageError, match=r"measured on another host: Old CPU, 2 cores.*--allow-other-host true"):
        require_table(table(teacher="digest", host="Old CPU, 2 cores"), teacher, False, False, "extract")
    require_table(table(teacher="digest", host="Old CPU, 2 cores"), teacher, False, True, "extract")


def test_extract_rejects_the_table_of_another_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kdnas.models.teacher import resolve_teacher

    tiny = resolve_teacher("builtin:minilm-l6")
    opened = replace(family({}), teacher=tiny)
    monkeypatch.setattr(Family, "load", lambda _: opened)
    other = table_artifact(tmp_path, law_rows(), teacher="a" * 64)
    with pytest.raises(UsageError, match="the latency table was measured with another teacher"):
        extract(Path("family"), tmp_path / "out", budget_ms=3.0, table=other.path)
    assert not (tmp_path / "out").exists()


def test_the_slider_shows_members_that_no_faster_one_beats() -> None:
    rows = [
        {"member": name, "latency_ms": ms, "loss": loss, "retention": None}
        for name, ms, loss in (("a", 3.0, 0.2), ("b", 1.0, 0.4), ("c", 2.0, 0.5), ("d", 1.0, 0.6))
    ]
    assert [row["arch"] for row in affordable(rows)] == ["b", "a"]
