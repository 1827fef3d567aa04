"""Figures of the report: hand-computed values, and empty logs."""

from typing import Any

import pytest

from kdnas.models.arch import Arch, SearchSpace
from kdnas.page.formatting import milliseconds
from kdnas.pipeline.figures import latency_scatter, smoothed, speed_bars
from kdnas.search.effects import field_effects
from kdnas.search.figures import effect_bars, references, search_rewards, search_scatter


def test_search_figures_match_hand_computed_values() -> None:
    def row(number: int, loss: float | None, took: float, reward: float | None, explored: bool) -> dict[str, Any]:
        values = {"loss": loss, "latency_ms": took, "reward": reward, "explored": explored}
        return {"number": number, "episode": number, "arch": f"a{number}", **values}

    journal = [row(0, 0.5, 2.0, 0.3, True), row(1, 0.4, 3.0, 0.2, False), row(2, None, 1.0, None, True)]
    results = {"winner": "a1", "pareto": [journal[1], journal[0]]}
    scatter = search_scatter(journal, results)
    traces = {trace.name: trace for trace in scatter.data if trace.name}
    assert list(traces["Pareto front"].x) == [2.0, 3.0]  # fastest first, independent of the artifact's order
    assert list(traces["winner"].x) == [3.0]
    points = [trace for trace in scatter.data if trace.customdata is not None and trace.name != "winner"]
    assert [(list(trace.x), trace.marker.symbol) for trace in points] == [([2.0], "circle"), ([3.0], "diamond")]
    best = next(trace for trace in search_rewards(journal, results).data if trace.name == "best so far")
    assert list(best.y) == [0.3, 0.3]


def test_effects_of_an_additive_loss_are_its_terms() -> None:
    def loss(arch: Arch) -> float:
        return 0.5 - 0.05 * (arch.layers == 6) + 0.02 * (arch.activation == "relu")

    archs = list(SearchSpace(layers=(3, 6), heads=(12,)))
    effects = field_effects(archs, [loss(arch) for arch in archs])
    assert list(effects) == ["layers", "hidden", "ffn", "activation"]  # heads have one value
    assert effects["layers"] == pytest.approx({"3": 0.025, "6": -0.025}, abs=1e-3)
    assert effects["activation"]["relu"] - effects["activation"]["gelu"] == pytest.approx(0.02, abs=1e-3)
    assert max(map(abs, effects["ffn"].values())) < 1e-3
    assert field_effects([], []) == {}
    assert field_effects(archs[:1], [0.4]) == {}


def test_references_are_the_teacher_and_hand_designed_shapes() -> None:
    made = [
        {"name": "6L-768H", "arch": "6,12,768,3072,gelu", "loss": 0.2, "latency_ms": 5.0},
        {"name": "b", "loss": None},
    ]
    teacher, by_hand = references({"baselines": made, "teacher_latency_ms": 9.0})[::-1]
    assert (list(teacher.x), list(teacher.y)) == ([9.0], [0])
    assert (list(by_hand.x), list(by_hand.y), list(by_hand.text)) == ([5.0], [0.2], ["6L-768H"])
    assert references({}) == []


def test_empty_logs_are_drawn() -> None:
    assert effect_bars([], []) is None
    assert search_scatter([], {"winner": None, "pareto": None}).data
    assert search_rewards([], {}).data
    assert speed_bars([], "p50_ms", "p50_ms", "p90_ms", "latency (ms)", milliseconds).layout.height
    assert latency_scatter([], {}, None).data


def test_smoothing_keeps_a_constant_and_averages_neighbours() -> None:
    assert smoothed([2.0] * 200) == [2.0] * 200
    assert smoothed([0.0, 3.0, 0.0]) == [1.5, 1.0, 1.5]
    assert smoothed([]) == []
