"""Strategy comparison on recorded losses: hand-computed metrics, saved runs, and the page."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from kdnas.errors import UsageError
from kdnas.models.arch import Arch, SearchSpace, arch_id
from kdnas.models.teacher import Teacher
from kdnas.search.comparison import CURVES, PAGE, run_comparison
from kdnas.search.comparison_options import ComparisonOptions
from kdnas.search.curves import Curves, write_curves
from kdnas.search.figures import strategy_bands
from kdnas.search.goal import Goal
from kdnas.search.known_losses import run_replay
from kdnas.search.limits import make_goal
from kdnas.search.options import SearchOptions, describe_strategies
from kdnas.search.random_table import random_and_recommended
from kdnas.search.recording import Recording
from kdnas.search.replay_run import RUNS, run_once
from kdnas.search.replays import Replay, make_replay, without_shape
from kdnas.search.strategies import STRATEGIES, Observation, Proposal, Registered
from kdnas.store.json_files import append_jsonl

from .search_fixture import fake_evaluate, known_table, latency_ms

SPACE = SearchSpace(layers=(3, 4), heads=(12,), hidden=(288, 384), ffn=(384, 576), activation=("gelu", "relu"))
LOSSES = {arch: fake_evaluate(arch).loss for arch in SPACE}
TABLE = known_table()
RECORDING = Recording({arch: {0: {1000: loss, 500: loss + 1}} for arch, loss in LOSSES.items()}, "recording")
BERT = {
    "model_type": "bert",
    "num_attention_heads": 12,
    "hidden_size": 384,
    "hidden_act": "gelu",
    "vocab_size": 100,
    "max_position_embeddings": 64,
    "type_vocab_size": 2,
}
GOAL = make_goal(SPACE, TABLE, SearchOptions())
REPLAY = Replay("unknown", RECORDING, TABLE, SPACE, None)
OPTIONS = ComparisonOptions(("random", "surrogate"), runs=3, episodes=3, candidates_per_episode=4)


def test_regret_and_hypervolume_match_hand_computed_values() -> None:
    archs = sorted(SPACE, key=lambda arch: GOAL.reward(arch, LOSSES[arch]))  # the best comes last
    ids = [arch_id(arch) for arch in archs]
    rewards = [GOAL.reward(arch, LOSSES[arch]) for arch in archs]
    found = Curves.of([{"ids": ids}, {"ids": ids[::-1]}], GOAL, LOSSES)
    assert found.regret[0] == pytest.approx([1 - reward / rewards[-1] for reward in rewards])
    assert found.regret[1] == pytest.approx(np.zeros(16))
    assert found.needed(1.0).tolist() == [15, 1]  # the two best differ only in activation
    assert found.hypervolume[:, -1] == pytest.approx([1, 1])
    assert (np.diff(found.hypervolume) >= 0).all()
    short = Curves.of([{"ids": ids[:5]}], GOAL, LOSSES)
    assert short.needed(1.0).tolist() == [6]  # the target was not reached
    assert short.metrics(1.0)["reached"] == 0


@pytest.mark.slow
def test_runs_are_saved_and_shown(tmp_path: Path) -> None:
    whole = run_comparison(tmp_path / "whole", REPLAY, OPTIONS)
    rows = [json.loads(line) for line in (whole.path / RUNS).read_text().splitlines()]
    assert {(row["strategy"], row["seed"]) for row in rows} == {(n, s) for n in OPTIONS.strategies for s in range(3)}
    for row in rows:
        assert row["ids"] == run_once(GOAL, LOSSES, OPTIONS.search(row["strategy"], row["seed"]))
        assert len(set(row["ids"])) == 12
    with (whole.path / CURVES).open(newline="") as file:
        curves = list(csv.DictReader(file))
    assert len(curves) == 2 * 12
    assert all(0 <= float(row["regret_low"]) <= float(row["regret_high"]) for row in curves)
    assert whole.results["strategies"]["surrogate"]["evaluations"] == 12
    page = (whole.path / PAGE).read_text()
    assert "Evaluations to 99.5 % of the best reward" in page
    assert "3 of 3" in page
    assert 'data-target="chart-hypervolume"' in page
    assert whole.results["recommends"] == "surrogate"  # the default
    assert page.count("random, seed 2") == 3
    assert page.count(">recommended<") == 3

    partial = tmp_path / "resumed" / "strategies" / f"{whole.path.name}.partial"
    partial.mkdir(parents=True)
    for row in rows[:4]:
        append_jsonl(partial / RUNS, row)
    with (partial / RUNS).open("a") as file:
        file.write('{"strategy": "ran')  # truncated by a kill
    resumed = run_comparison(tmp_path / "resumed", REPLAY, OPTIONS)
    lines = (resumed.path / RUNS).read_text().splitlines()
    assert [json.loads(line) for line in lines[:4]] == rows[:4]
    assert len(lines) == len(rows) == 6
    assert (resumed.path / CURVES).read_text() == (whole.path / CURVES).read_text()


def test_random_and_recommended_architectures() -> None:
    proposed = sorted(LOSSES, key=lambda arch: arch.ffn)[:5]
    rows = random_and_recommended(GOAL, LOSSES, proposed)
    assert [row["name"] for row in rows] == [
        *(f"random, seed {seed}" for seed in (0, 0, 0, 1, 1, 1, 2, 2, 2)),
        *["recommended"] * 3,
    ]
    rewards = [GOAL.reward(arch, LOSSES[arch]) for arch in proposed]
    assert [row["reward"] for row in rows[-3:]] == sorted(rewards, reverse=True)[:3]
    for row in rows:
        arch = Arch.parse(row["arch"])
        assert (row["loss"], row["latency_ms"]) == (LOSSES[arch], latency_ms(arch))
    assert len({row["arch"] for row in rows[:3]}) == 3
    assert rows == random_and_recommended(GOAL, LOSSES, proposed)


class InOrder:
    """A strategy that proposes the architectures in the order of their ids."""

    def __init__(self, goal: Goal) -> None:
        self._coming = goal.states

    def ask(self, count: int, evaluated: Sequence[Arch] = ()) -> list[Proposal]:
        return [Proposal(arch, False, None) for arch in self._coming[:count] if arch not in evaluated]

    def tell(self, observations: Sequence[Observation]) -> None:
        self._coming = self._coming[len(observations) :]


def test_one_registry_entry_adds_a_strategy_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="in-order"):
        SearchOptions(strategy="in-order")
    monkeypatch.setitem(STRATEGIES, "in-order", Registered(lambda goal, _: InOrder(goal), "the order of the ids", True))
    with pytest.raises(UsageError, match="not a front"):
        SearchOptions(strategy="in-order", front=True)
    assert "`in-order`, the order of the ids" in describe_strategies("STRATEGIES")
    assert describe_strategies("FRONTLESS").endswith("and `in-order`")
    options = SearchOptions(strategy="in-order", episodes=2, candidates_per_episode=3)
    found = run_replay(tmp_path, RECORDING, SPACE, TABLE, options)
    journal = [json.loads(line) for line in (found.path / "journal.jsonl").read_text().splitlines()]
    ids = [arch_id(arch) for arch in SPACE]
    assert [row["id"] for row in journal] == ids[:6]
    compared = ComparisonOptions(("random", "in-order"), runs=1, episodes=2, candidates_per_episode=3)
    proposed = run_once(GOAL, LOSSES, compared.search("in-order", 0))
    assert proposed == ids[:6]
    rows = [{"ids": proposed}]
    write_curves(tmp_path / CURVES, {name: Curves.of(rows, GOAL, LOSSES) for name in compared.strategies})
    assert {trace.name for trace in strategy_bands(tmp_path / CURVES)["regret"].data if trace.name} == {
        "random",
        "in-order",
    }


def test_twelve_strategies_have_distinct_lines(tmp_path: Path) -> None:
    names = [f"strategy {number}" for number in range(12)]
    curves = Curves.of([{"ids": [arch_id(arch) for arch in SPACE]}], GOAL, LOSSES)
    write_curves(tmp_path / CURVES, dict.fromkeys(names, curves))
    for figure in strategy_bands(tmp_path / CURVES).values():
        lines = [trace for trace in figure.data if trace.name]
        assert [trace.name for trace in lines] == names
        assert len({(trace.line.color, trace.line.dash) for trace in lines}) == 12


@pytest.mark.parametrize(
    "wrong",
    [
        {"strategies": ("luck",)},
        {"strategies": ()},
        {"strategies": ("random", "random")},
        {"runs": 0},
        {"target": 2.0},
        {"limits": -1},
        {"limits": 2, "hint": True},
        {"fewer_runs": ("gp",)},
        {"fewer_runs": ("gp=99",)},
        {"fewer_runs": ("luck=1",)},
        {"settings": ("controller_lr=fast",)},
        {"settings": ("seed=1",)},
        {"settings": ("controller_memory=none",)},
    ],
)
def test_invalid_options_are_rejected(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        ComparisonOptions(**wrong)  # type: ignore[arg-type]


def test_hint_and_missing_teacher_shape_are_settings_of_the_comparison() -> None:
    shape = Arch(4, 12, 384, 576)
    teacher = Teacher("tiny", Path(), BERT | {"num_hidden_layers": 4, "intermediate_size": 576}, "")
    goal = make_goal(SPACE, TABLE, SearchOptions(), teacher)
    assert goal.teacher == shape
    options = ComparisonOptions(("random",), runs=1, episodes=2, candidates_per_episode=6, hint=True)
    first = run_once(goal, LOSSES, options.search("random", 3), options.hint)
    assert first[0] == arch_id(shape)
    assert first[:4] == run_once(goal, LOSSES, options.search("nearest", 3))[:4]
    left = without_shape(list(SPACE), shape)
    assert set(SPACE) - set(left) == {shape, Arch(4, 12, 384, 576, "relu")}
    with pytest.raises(UsageError, match="give its --teacher"):
        without_shape(left, None)
    with pytest.raises(UsageError, match="all 1 recorded architectures"):
        without_shape([shape], shape)
    with pytest.raises(UsageError, match="give its --teacher"):
        run_comparison(Path("unused"), REPLAY, options)


@pytest.mark.slow
def test_a_comparison_without_the_teacher_shape_never_proposes_it(tmp_path: Path) -> None:
    teacher = Teacher("tiny", Path(), BERT | {"num_hidden_layers": 4, "intermediate_size": 576}, "")
    options = ComparisonOptions(
        ("random", "hint-random"), runs=1, episodes=4, candidates_per_episode=4, hint=True, without_teacher_shape=True
    )
    found = run_comparison(tmp_path, make_replay(RECORDING, TABLE, SPACE, teacher), options)
    assert found.results["architectures"] == 14
    rows = [json.loads(line) for line in (found.path / RUNS).read_text().splitlines()]
    assert all(arch_id(Arch(4, 12, 384, 576, name)) not in row["ids"] for row in rows for name in ("gelu", "relu"))
    assert "without the teacher" in (found.path / PAGE).read_text()
