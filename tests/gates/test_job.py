"""Comparisons: looks, interruptions, and every failure of a side."""

import json
from pathlib import Path

import pytest

from kdnas.gates.decision import Outcome, Rule, decide
from kdnas.gates.job import RESULTS, Found, Process, compare, save
from kdnas.gates.process import SideError, Timed
from kdnas.gates.sides import Side
from kdnas.gates.summary import markdown, picture, sketch
from kdnas.store.json_files import read_jsonl

SIDES = {name: Side(spec, Path("python"), None, None, name) for name, spec in (("A", "main"), ("B", "my-branch"))}
RULE = Rule(looks=(8, 10))  # 8 pairs decide on up to 6 benchmarks
Only = tuple[str, ...] | None


def timed(seconds: dict[str, float], cpu: str = "a") -> Timed:
    return Timed(seconds, {"cpu": cpu, "cores": 2, "python": "3.11"}, {})


class Host:
    """Times with 0.1 % noise; on the head, each benchmark is slower by its factor."""

    def __init__(
        self, slower: dict[str, float], base: tuple[str, ...] | None = None, head: tuple[str, ...] | None = None
    ) -> None:
        self.slower, self.calls = slower, 0
        self.names = {"main": base or tuple(slower), "my-branch": head or tuple(slower)}

    def __call__(self, side: Side, only: Only) -> Timed:
        self.calls += 1
        jitter = 1 + 0.001 * (self.calls % 3)
        head = side.name == "my-branch"
        names = self.names[side.name] if only is None else only
        return timed({name: jitter * (self.slower.get(name, 1.0) if head else 1.0) for name in names})


def test_decided_comparison_stops_after_the_first_look(tmp_path: Path) -> None:
    host = Host({"session": 1.2, "tokenising": 1.0})
    found = compare(tmp_path, SIDES, host, RULE, 10)
    assert host.calls == 16
    assert found.verdicts["session"].outcome is Outcome.REGRESSION
    assert found.verdicts["session"].ratio[1] == pytest.approx(1.2, rel=0.01)
    assert found.verdicts["tokenising"].outcome is Outcome.OK
    assert found.outcome is Outcome.REGRESSION
    assert found.exit_code == 3
    summary = save(tmp_path, SIDES, found, RULE)
    text = markdown(summary)
    assert "### Performance gate: REGRESSION" in text
    assert "| session | 1." in text
    assert "`my-branch` against `main`" in text
    drawn = picture(summary)
    assert drawn.startswith("<svg")
    assert drawn.count("<circle") == 2


def test_sketch_matches_a_hand_drawn_one() -> None:
    # 33 cells from 0.85 to 1.25, 0.0125 each: 1 is the 13th, 1.05 the 17th, 1.1 the 21st.
    drawn = sketch({"ratio": (1.075, 1.1, 1.125), "threshold": 0.05})
    assert drawn == "\u00b7" * 12 + ":" + "\u00b7" * 3 + "!" + "\u00b7" + "==O==" + "\u00b7" * 10
    assert sketch({"ratio": (3.0, 4.0, 5.0), "threshold": 0.9})[-1] == "O"


def test_undecided_comparison_looks_again_and_does_not_block(tmp_path: Path) -> None:
    host = Host({"session": 1.05})
    found = compare(tmp_path, SIDES, host, RULE, 10)
    assert host.calls == 20
    assert found.outcome is Outcome.INCONCLUSIVE
    assert found.exit_code == 0
    assert "does not block" in markdown(save(tmp_path, SIDES, found, RULE))


def test_decided_benchmarks_are_not_timed_again(tmp_path: Path) -> None:
    slower = {"session": 1.2, "in doubt": 1.05, "tokenising": 1.0}
    host = Host(slower)
    found = compare(tmp_path, SIDES, host, RULE, 10)
    assert [list(row["seconds"]) for row in read_jsonl(tmp_path / RESULTS)] == 16 * [list(slower)] + 4 * [["in doubt"]]
    assert [(one.outcome, one.pairs) for one in found.verdicts.values()] == [
        (Outcome.REGRESSION, 8), (Outcome.INCONCLUSIVE, 10), (Outcome.OK, 8),
    ]  # fmt: skip
    assert compare(tmp_path, SIDES, host, RULE, 10) == found
    assert host.calls == 20


def test_too_few_pairs_for_an_interval_are_reported(tmp_path: Path) -> None:
    host = Host({f"benchmark {number}": 1.2 for number in range(7)})
    found = compare(tmp_path, SIDES, host, Rule(looks=(8,), alpha=0.025), 10)  # 0.5 ** 8 > 0.025 / 7
    assert {one.outcome for one in found.verdicts.values()} == {Outcome.INCONCLUSIVE}
    summary = save(tmp_path, SIDES, found, RULE)
    stored = json.loads((tmp_path / "summary.json").read_text(), parse_constant=pytest.fail)  # JSON has no infinity
    low, middle, high = stored["benchmarks"]["benchmark 0"]["ratio"]
    assert (low, high) == (None, None)
    assert middle == pytest.approx(1.2, rel=0.01)
    assert "| [too few pairs] |" not in markdown(summary)  # the noise has an interval
    assert "[too few pairs] | `=" in markdown(summary)
    drawn = picture(summary)
    assert "nan" not in drawn
    assert "inf" not in drawn


def test_out_of_time_reports_partial_results(tmp_path: Path) -> None:
    host = Host({"session": 1.2})
    found = compare(tmp_path, SIDES, host, RULE, 1e-9)
    assert host.calls == 0
    assert found.exit_code == 1
    assert found.failures == {"suite": "no benchmark ran on both sides"}


def test_interrupted_comparison_resumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    host = Host({"session": 1.2})

    def once_killed(side: Side, only: Only) -> Timed:
        if host.calls == 5:
            raise KeyboardInterrupt
        return host(side, only)

    with pytest.raises(KeyboardInterrupt):
        compare(tmp_path, SIDES, once_killed, RULE, 10)
    with (tmp_path / RESULTS).open("a") as file:
        file.write('{"side": "B", "sec')  # truncated by the kill
    capsys.readouterr()
    compare(tmp_path, SIDES, host, RULE, 10)
    message = capsys.readouterr().err
    assert "5 processes" in message
    assert str(tmp_path) in message
    assert host.calls == 16
    assert "".join(row["side"] for row in read_jsonl(tmp_path / RESULTS)) == 4 * "ABBA"


def crashes(side: Side, only: Only) -> Timed:
    raise SideError(f"{side.name}: pytest ended with 139\nSegmentation fault")


def zero(side: Side, only: Only) -> Timed:
    return timed({"session": 0.0 if side.name == "main" else 1.0})


def two_hosts(side: Side, only: Only) -> Timed:
    return timed({"session": 1.0}, "a" if side.name == "main" else "b")


@pytest.mark.parametrize(
    ("process", "where", "why"),
    [
        (crashes, "process of the base", "main: pytest ended with 139"),
        (zero, "session", "not above 0"),
        (two_hosts, "host", "different hosts"),
        (Host({}, ("old",), ("new",)), "old", "base"),
    ],
)
def test_unjudgeable_benchmark_is_a_failure(process: Process, where: str, why: str, tmp_path: Path) -> None:
    found = compare(tmp_path, SIDES, process, RULE, 10)
    assert found.outcome is Outcome.FAILED
    assert found.exit_code == 1
    assert why in found.failures[where]
    text = markdown(save(tmp_path, SIDES, found, RULE))
    assert f"**{where}**: " in text
    assert why in text


def test_a_benchmark_only_in_the_head_is_new(tmp_path: Path) -> None:
    found = compare(tmp_path, SIDES, Host({"session": 1.0}, ("session",), ("session", "fresh")), RULE, 10)
    assert found.new == ("fresh",)
    assert found.exit_code == 0
    assert "fresh" in markdown(save(tmp_path, SIDES, found, RULE))


def test_a_regression_blocks_despite_other_failures() -> None:
    slower = decide(4 * [1, 2, 2.01, 1], RULE)
    assert slower.outcome is Outcome.REGRESSION
    assert Found({"session": slower}, {"tokenising": "only the base has it"}).exit_code == 3
