"""A study over teachers and random limits: hand-computed regrets, deterministic limits, resuming, and its tables."""

import csv
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kdnas.errors import UsageError
from kdnas.models.arch import Arch, SearchSpace, arch_id
from kdnas.search.comparison import compare_strategies
from kdnas.search.comparison_options import ComparisonOptions
from kdnas.search.goal import Goal
from kdnas.search.replay_run import RUNS
from kdnas.search.replays import Replay, open_replays
from kdnas.search.strategies import STRATEGIES
from kdnas.search.study import run_study, settings_of
from kdnas.search.study_cells import GRID, Cell, estimate, mean, median, metrics
from kdnas.search.study_page import LIMITS, PAGE, TABLE, TEXT
from kdnas.search.study_problems import Problem, describe, make_problems, random_limits, schedule
from kdnas.store.json_files import append_jsonl, read_jsonl

from .search_fixture import fake_evaluate, latency_ms, recorded, table

SPACE = SearchSpace(layers=(3, 4), heads=(12,), hidden=(288, 384), ffn=(384, 576), activation=("gelu", "relu"))
TEACHERS = {"one": Arch(4, 12, 384, 576), "two": Arch(12, 12, 768, 3072)}
OPTIONS = ComparisonOptions(("random", "nearest", "evolution"), runs=2, fewer_runs=("nearest=1",), limits=3)


def provenance(name: str) -> dict[str, str]:
    return {
        "origin": "random",
        "teacher": name,
        "teacher_digest": f"digest-{name}",
        "teacher_shape": str(TEACHERS[name]),
    }


def replays_below(folder: Path) -> list[Replay]:
    """Two recordings, each with the table of its teacher."""
    files = [recorded(folder / f"{name}.csv", list(SPACE), **provenance(name)) for name in TEACHERS]
    tables = [table(folder, teacher=f"digest-{name}").path for name in TEACHERS]
    return open_replays(files, tables, SPACE, "not needed", Path("unused"))


def test_limits_are_deterministic_and_between_the_percentiles() -> None:
    latencies = [float(number) for number in range(101)]  # the 5th percentile is 5, the 80th 80
    found = random_limits(latencies, 200, 7, 0)
    assert found == random_limits(latencies, 200, 7, 0)
    assert found[:20] == random_limits(latencies, 20, 7, 0)
    assert found != random_limits(latencies, 200, 8, 0)
    assert found != random_limits(latencies, 200, 7, 1)  # of the next recording
    assert 5 <= min(found) < 7
    assert 78 < max(found) <= 80


def test_schedule_is_scaled_by_the_recorded_fraction() -> None:
    published = ComparisonOptions(limits=1)
    assert schedule(published, 2400, 2400) == (300, 20)
    assert schedule(published, 160, 2400) == (20, 1)
    assert schedule(published, 480, 1440) == (100, 7)
    assert schedule(replace(published, scale_schedule=False), 160, 2400) == (300, 20)


def test_a_run_is_described_as_by_hand() -> None:
    archs = list(SPACE)[:4]
    # With alpha 0 the reward is 1 - loss: 0.2, 0.8, 0.5 and 0.4, so the best is 0.8.
    losses = dict(zip(archs, (0.8, 0.2, 0.5, 0.6), strict=True))
    goal = Goal(dict.fromkeys(archs, 1.0), 2.0, 0.0, 0.6, dict.fromkeys(archs, 1.0))
    problem = Problem(1.0, goal, losses, evaluations=8, per_episode=2)
    found = describe(problem, [arch_id(archs[index]) for index in (0, 2, 1, 3)], 0.99)
    assert found["needed"] == 3
    # After 1 evaluation 1 - 0.2 / 0.8, after 2 1 - 0.5 / 0.8, then 0; the schedule has 8, and 20 parts of 0.4 evaluations.
    evaluations = [max(1, round(0.4 * part)) for part in range(1, GRID + 1)]
    assert found["regret"] == pytest.approx([{1: 0.75, 2: 0.375}.get(number, 0.0) for number in evaluations])
    # All have the same latency and memory, so the volume is that of the smallest loss.
    assert found["front"] == pytest.approx([{1: 0.25, 2: 0.625}.get(number, 1.0) for number in evaluations])
    assert describe(problem, [arch_id(archs[0])], 0.99)["needed"] is None


def cell(strategy: str, needed: list[list[int | None]], half: list[list[float]]) -> Cell:
    rows = [
        [
            {"needed": count, "regret": [0.5] * 9 + [regret] * 11, "front": [0.9] * GRID, "seconds": 1.0}
            for count, regret in zip(counts, regrets, strict=True)
        ]
        for counts, regrets in zip(needed, half, strict=True)
    ]
    return Cell(strategy, True, "teacher", rows)


def test_metrics_match_hand_computed_values() -> None:
    one = cell("one", [[2, 4], [9, None]], [[0.0, 0.02], [0.005, 0.2]])
    default = cell("default", [[1, 1], [1, 1]], [[0.0, 0.0], [0.01, 0.01]])
    found = metrics([one], 0.99, [default])
    assert found["regret_quarter"].value == 0.5
    assert found["regret_half"].value == pytest.approx((0 + 0.02 + 0.005 + 0.2) / 4)
    assert found["reached_half"].value == 0.5  # 0 and 0.005
    assert found["evaluations_needed"].value == 4  # the lower of the two in the middle
    assert found["evaluations_needed"].high == math.inf
    assert found["front_half"].value == pytest.approx(0.9)
    assert found["regret_half_over_default"].value == pytest.approx(((0.01 - 0) + (0.1025 - 0.01)) / 2)
    assert metrics([default], 0.99, [default])["regret_half_over_default"].low == 0


def test_interval_grows_with_the_spread_between_teachers() -> None:
    rng = np.random.default_rng(0)
    runs = rng.normal(size=(4, 6, 10))
    alike, apart = runs, runs + 5 * np.arange(4)[:, None, None]
    narrow, wide = estimate(alike, mean), estimate(apart, mean)
    assert narrow.low <= narrow.value <= narrow.high
    assert wide.high - wide.low > 5 * (narrow.high - narrow.low)
    same = estimate(np.ones((1, 3, 2)), median)
    assert (same.value, same.low, same.high) == (1, 1, 1)
    assert median(np.array([[1, math.inf, 2, math.inf]])).tolist() == [2]


def test_strategies_that_only_follow_the_hint_run_with_it_alone() -> None:
    assert settings_of(["random", "nearest"]) == [("random", False), ("random", True), ("nearest", True)]
    assert [name for name, entry in STRATEGIES.items() if entry.needs_hint] == ["nearest", "hint-random"]


def test_problems_have_the_architectures_within_their_limits(tmp_path: Path) -> None:
    replay = replays_below(tmp_path)[0]
    options = replace(OPTIONS, limits=8, without_teacher_shape=True)
    problems = make_problems(replay, options, 0)
    assert len(problems) == 8
    for problem in problems:
        within = {arch for arch in SPACE if latency_ms(arch) <= problem.limit_ms}
        assert set(problem.losses) == within - {Arch(4, 12, 384, 576, name) for name in ("gelu", "relu")}
        assert problem.goal.teacher == TEACHERS["one"]
        assert problem.losses == {arch: fake_evaluate(arch).loss for arch in problem.losses}
    assert [one.limit_ms for one in make_problems(replay, options, 0)] == [one.limit_ms for one in problems]
    bad = replace(replay.recording, losses={arch: {0: {10: 1.5}} for arch in SPACE})
    with pytest.raises(UsageError, match=r"recording of one: the best reward of .* must be above 0"):
        make_problems(replace(replay, recording=bad), options, 0)
    with pytest.raises(UsageError, match="the shape of its teacher is unknown"):
        make_problems(replace(replay, shape=None), options, 0)


@pytest.mark.slow
def test_a_resumed_study_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    replays = replays_below(tmp_path)
    whole = run_study(tmp_path / "whole", replays, OPTIONS)
    rows = read_jsonl(whole.path / RUNS)
    # Two teachers, three limits; two runs of random and evolution without and with the hint, one of nearest.
    assert len(rows) == 2 * 3 * (2 * 2 * 2 + 1)
    partial = tmp_path / "resumed" / "strategy-study" / f"{whole.path.name}.partial"
    partial.mkdir(parents=True)
    for row in rows[:7]:
        append_jsonl(partial / RUNS, row)
    with (partial / RUNS).open("a") as file:
        file.write('{"recording": 0, "lim')  # truncated by a kill
    resumed = run_study(tmp_path / "resumed", replays, OPTIONS)
    assert read_jsonl(resumed.path / RUNS)[:7] == rows[:7]
    assert len(read_jsonl(resumed.path / RUNS)) == len(rows)
    for name in (LIMITS, TABLE, TEXT, "curves.csv"):
        assert (resumed.path / name).read_text() == (whole.path / name).read_text()
    with (whole.path / TABLE).open(newline="") as lines:
        found = list(csv.DictReader(lines))
    assert [(row["teacher"], row["strategy"], row["hint"]) for row in found[:6]] == [
        *(("all", name, str(hint)) for name, hint in settings_of(OPTIONS.strategies)),
        ("one", "random", "False"),
    ]
    assert len(found) == 3 * 5
    assert {row["frozen"] for row in found} == {""}
    text = (whole.path / TEXT).read_text()
    assert "not frozen at a named commit" in text
    assert "| all | `nearest` | yes | 6 |" in text
    assert "plotly" in (whole.path / PAGE).read_text()
    with (whole.path / LIMITS).open(newline="") as lines:
        assert [row["teacher"] for row in csv.DictReader(lines)] == ["one"] * 3 + ["two"] * 3
    assert [one["teacher_digest"] for one in whole.results["recordings"]] == ["digest-one", "digest-two"]
    assert set(whole.results["seconds_per_run"]) == set(OPTIONS.strategies)


def test_wrong_input_gives_one_clear_line(tmp_path: Path) -> None:
    first, second = (recorded(tmp_path / f"{name}.csv", list(SPACE), **provenance(name)) for name in TEACHERS)
    one = table(tmp_path, teacher="digest-one").path
    two = table(tmp_path, teacher="digest-two").path
    wrong = [
        (OPTIONS, (first, second), (two, one), r"another teacher \(digest digest-two\) than the recording's, one"),
        (OPTIONS, (first, second), (one,), "2 recordings and 1 tables"),
        (replace(OPTIONS, limits=0), (first, second), (one, two), "add --limits 20"),
        (replace(OPTIONS, frozen="no-such-commit"), (first,), (one,), "frozen is 'no-such-commit'"),
        (replace(OPTIONS, limits=0, max_latency_fraction=1e-6), (first,), (one,), "none of 16 architectures is within"),
    ]
    for options, recordings, tables, message in wrong:
        with pytest.raises(UsageError, match=message) as raised:
            compare_strategies(options, recordings, tables, SPACE, home=tmp_path)
        assert "\n" not in str(raised.value)
    lines = first.read_text().splitlines() + second.read_text().splitlines()[1:]
    (tmp_path / "mixed.csv").write_text("\n".join(lines))
    with pytest.raises(UsageError, match=r"losses of 2 teachers \(digests digest-one, digest-two\)"):
        compare_strategies(OPTIONS, (tmp_path / "mixed.csv",), (one,), SPACE, home=tmp_path)
    old = recorded(tmp_path / "old.csv", list(SPACE))
    with pytest.raises(UsageError, match="does not say which architectures were drawn"):
        open_replays([old], [table(tmp_path).path], SPACE, "builtin:minilm-l6", tmp_path)[0].states(only_random=True)
