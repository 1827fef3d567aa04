"""The script that counts the gate's errors: confidence limits, and going on after a kill. No comparison runs here."""

import importlib.util
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

from kdnas.errors import UsageError
from kdnas.gates.process import Timed
from kdnas.gates.sides import Side

SCRIPT = Path(__file__).parents[1] / "bench" / "gate_power.py"


@pytest.fixture
def power(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, with comparisons that take no time: those of a slowdown of 10 % are found."""
    spec = importlib.util.spec_from_file_location("gate_power", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def trial(fraction: float) -> dict[str, str]:
        outcome = "REGRESSION" if fraction == 0.1 else "OK"
        row = dict.fromkeys(module.COLUMNS, "False") | {"slower_by": f"{fraction:g}", "rule": module.rule_name()}
        row |= {"seconds": "2.0", "batching_pairs": "10", "tokenising_pairs": "16"}
        return row | {name: outcome for name in module.COLUMNS if name.endswith("outcome")}

    module.real_trial = module.trial
    monkeypatch.setattr(module, "trial", trial)
    return module


def test_upper_limits_match_hand_computed_ones(power: ModuleType) -> None:
    assert power.upper(0, 300) == pytest.approx(1 - 0.05 ** (1 / 300))  # 1.0 %
    assert power.upper(0, 1) == pytest.approx(0.95)
    assert power.upper(5, 5) == 1.0
    # 1 of 10: the p with (1 - p)^10 + 10 p (1 - p)^9 = 0.05, from the tables of Clopper and Pearson
    limit = power.upper(1, 10)
    assert limit == pytest.approx(0.394, abs=5e-4)
    assert (1 - limit) ** 10 + 10 * limit * (1 - limit) ** 9 == pytest.approx(0.05)


def test_a_killed_run_goes_on(power: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, plan, whole, calls = tmp_path / "trials.csv", power.plan_of("0:6,0.1:2"), power.trial, []

    def killed(fraction: float) -> dict[str, str]:
        calls.append(fraction)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return whole(fraction)

    monkeypatch.setattr(power, "trial", killed)
    with pytest.raises(KeyboardInterrupt):
        power.run(plan, file)
    lines = file.read_text().splitlines()
    assert len(lines) == 1 + 4
    with file.open("a") as out:
        out.write("0,0.05 0.15")  # truncated by the kill
    rows = power.run(plan, file)
    assert len(calls) == 5 + 4  # what was recorded is not run again
    assert Counter(row["slower_by"] for row in rows) == {"0": 6, "0.1": 2}
    assert file.read_text().splitlines()[: len(lines)] == lines
    assert power.read(file) == rows
    assert power.run(plan, file) == rows
    assert len(calls) == 9


def test_a_comparison_fills_all_columns(power: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def process(side: Side, *_: object) -> Timed:
        seconds = {"test_batching": 1.0, "test_tokenising": 1.2 if side.name == "head" else 1.0}
        rows = [{"name": name, "stats": {"mean": mean}} for name, mean in seconds.items()]
        return Timed(seconds, {"cpu": "a"}, {"benchmarks": rows})

    monkeypatch.setattr(power, "run_process", process)
    row = power.real_trial(0.2)
    assert tuple(row) == power.COLUMNS
    assert [row[name] for name in ("slower_by", "rule", "outcome")] == [
        "0.2",
        "0.05 0.15 0.05 10-16-24-40",
        "REGRESSION",
    ]
    assert [row[f"batching_{name}"] for name in power.DETAILS] == ["OK", "10", "1.0", "0.05", "False"]
    assert [row[f"tokenising_{name}"] for name in ("outcome", "pairs", "naive")] == ["REGRESSION", "10", "True"]


def test_slowdowns_take_turns_in_proportion(power: ModuleType, tmp_path: Path) -> None:
    rows = power.run(power.plan_of("0:6,0.1:2"), tmp_path / "trials.csv")
    assert Counter(row["slower_by"] for row in rows[:4]) == {"0": 3, "0.1": 1}


def test_table_shows_rates_with_limits(power: ModuleType, tmp_path: Path) -> None:
    lines = power.table(power.run(power.plan_of("0:30,0.1:10"), tmp_path / "trials.csv"))
    assert len(lines) == 2 + 2 * 3
    assert len({line.count("|") for line in lines}) == 1
    unchanged, slowed = lines[2], lines[-1]
    assert unchanged.startswith("| 0 % | batching | 30 | 0.0 % (<= 9.5) | 100.0 % (<= 100.0) |")  # 1 - 0.05 ** (1 / 30)
    assert unchanged.endswith("| 10.0 | 2.0 |")
    assert slowed.startswith("| 10 % | both | 10 | 100.0 % (<= 100.0) | 0.0 % (<= 25.9) |")  # 1 - 0.05 ** (1 / 10)
    assert slowed.endswith("| 16.0 | 2.0 |")


def test_other_results_are_refused(power: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "trials.csv"
    power.run(power.plan_of("0:1"), file)
    file.write_text(file.read_text().replace("10-16-24-40", "8-14-24-40"))
    with pytest.raises(UsageError, match=r"by the rule '0\.05 0\.15 0\.05 8-14-24-40'"):
        power.read(file)
    file.write_text("slower_by,benchmark\n0.0,test_batching\n")
    with pytest.raises(UsageError, match="other columns"):
        power.read(file)
    for wrong in ("", "0", "0:x", "0:0", "-0.1:3"):
        with pytest.raises(UsageError, match="plan"):
            power.plan_of(wrong)
