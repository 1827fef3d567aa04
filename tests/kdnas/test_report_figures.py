"""Figures of the report by hand, and of logs that hold nothing."""

from typing import Any

from kdnas.report_figures import latency_scatter, search_rewards, search_scatter, smoothed, speed_bars
from kdnas.report_numbers import milliseconds


def test_search_figures_by_hand() -> None:
    def row(number: int, loss: float | None, took: float, reward: float | None, explored: bool) -> dict[str, Any]:
        values = {"loss": loss, "latency_ms": took, "reward": reward, "explored": explored}
        return {"number": number, "episode": number, "arch": f"a{number}", **values}

    journal = [row(0, 0.5, 2.0, 0.3, True), row(1, 0.4, 3.0, 0.2, False), row(2, None, 1.0, None, True)]
    results = {"winner": "a1", "pareto": [journal[1], journal[0]]}
    scatter = search_scatter(journal, results)
    traces = {trace.name: trace for trace in scatter.data if trace.name}
    assert list(traces["Pareto front"].x) == [2.0, 3.0]  # fastest first, whatever the artifact's order
    assert list(traces["winner"].x) == [3.0]
    points = [trace for trace in scatter.data if trace.customdata is not None and trace.name != "winner"]
    assert [(list(trace.x), trace.marker.symbol) for trace in points] == [([2.0], "circle"), ([3.0], "diamond")]
    best = next(trace for trace in search_rewards(journal, results).data if trace.name == "best so far")
    assert list(best.y) == [0.3, 0.3]


def test_empty_logs_still_draw() -> None:
    assert search_scatter([], {"winner": None, "pareto": None}).data
    assert search_rewards([], {}).data
    assert speed_bars([], "p50_ms", "p50_ms", "p90_ms", "latency (ms)", milliseconds).layout.height
    assert latency_scatter([], {}, None).data


def test_smoothing_keeps_a_constant_and_averages_neighbours() -> None:
    assert smoothed([2.0] * 200) == [2.0] * 200
    assert smoothed([0.0, 3.0, 0.0]) == [1.5, 1.0, 1.5]
    assert smoothed([]) == []
