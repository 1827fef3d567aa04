"""Successive halving: who goes on, what it costs, and the same after a kill."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from kdnas.models.arch import Arch, SearchSpace
from kdnas.search import journal
from kdnas.search.explore import explore, one_by_one
from kdnas.search.goal import Goal
from kdnas.search.halving import Halving
from kdnas.search.journal import Candidate
from kdnas.search.options import SearchOptions
from kdnas.search.outcome import ProxyResult
from kdnas.search.run import summary
from kdnas.search.strategies import make_strategy

SPACE = SearchSpace(layers=(3, 4), heads=(12,), hidden=(288, 384), ffn=(384, 576, 1024), activation=("gelu", "relu"))
GOAL = Goal({arch: 1.0 + arch.flops(24) / 1e8 for arch in SPACE}, 8.0, -0.06, 0.6)
OPTIONS = SearchOptions(strategy="random", episodes=6, candidates_per_episode=4)
BUDGET = 1600


class Falling:
    """Losses that fall along the budget, each to its own end; some diverge after the first look."""

    def __init__(self, diverges: str = "") -> None:
        self.diverges, self.distilled = diverges, 0

    def end(self, arch: Arch) -> float:
        return 15 / (arch.layers * arch.hidden) ** 0.5 / (1 + arch.ffn / 3000)

    def curve(self, arch: Arch, marks: Sequence[float]) -> Iterator[ProxyResult]:
        before = 0
        for mark in marks:
            self.distilled += int(mark * BUDGET) - before
            before = int(mark * BUDGET)
            loss = self.end(arch) * (2 - mark)
            if arch.activation == self.diverges and mark > marks[0]:
                loss = float("nan")
            yield ProxyResult(loss, int(mark * BUDGET))


def without_seconds(candidates: list[Candidate]) -> list[Candidate]:
    return [replace(candidate, seconds=0.0) for candidate in candidates]


def test_by_hand() -> None:
    distils = Falling()
    halving = Halving(distils, GOAL, 2, 1)
    assert halving.marks == [0.5, 1.0]
    worst, best, middle = sorted(SPACE, key=lambda arch: GOAL.reward(arch, distils.end(arch)))[:: len(SPACE) // 2 - 1][
        :3
    ]
    first = halving(worst)  # there is none to compare it with
    assert first == ProxyResult(pytest.approx(distils.end(worst)), BUDGET, first.curve)
    assert [tokens for tokens, _ in first.curve] == [800, 1600]
    best, middle = sorted((best, middle), key=lambda arch: -GOAL.reward(arch, distils.end(arch)))
    assert not halving(best).stopped
    stopped = halving(middle)
    assert stopped.stopped
    assert stopped.tokens == 800
    # 1.5 at the look becomes 1 at the end, for all of these.
    assert stopped.loss == pytest.approx(distils.end(middle))


def test_most_are_stopped_and_the_best_is_found(tmp_path: Path) -> None:
    whole, halved = Falling(), Falling()
    found = {}
    for name, distils, evaluate in (
        ("whole", whole, lambda arch: list(whole.curve(arch, [1.0]))[-1]),
        ("halved", halved, Halving(halved, GOAL, 4, 2)),
    ):
        candidates = explore(tmp_path / name, make_strategy(GOAL, OPTIONS), one_by_one(evaluate), GOAL, OPTIONS)
        found[name] = summary(candidates, GOAL)
        assert found[name]["tokens"] == distils.distilled
    assert found["halved"]["winner_reward"] == pytest.approx(found["whole"]["winner_reward"])
    assert found["whole"]["stopped"] == 0
    assert found["halved"]["stopped"] > 12
    assert found["halved"]["tokens"] < 0.5 * found["whole"]["tokens"]


@pytest.mark.parametrize("diverges", ["", "relu"])
def test_interrupted_after_every_candidate_it_is_the_same(tmp_path: Path, diverges: str) -> None:
    def run(path: Path, allowed: int = 99) -> list[Candidate]:
        halving, done = Halving(Falling(diverges), GOAL, 2, 2), []
        halving.recall(journal.read(path))

        def evaluate(arch: Arch) -> ProxyResult:
            if len(done) == allowed:
                raise KeyboardInterrupt
            done.append(arch)
            return halving(arch)

        return explore(path, make_strategy(GOAL, OPTIONS), one_by_one(evaluate), GOAL, OPTIONS)

    expected = run(tmp_path / "whole.jsonl")
    assert {candidate.stopped for candidate in expected} == {True, False}
    assert any(candidate.failed for candidate in expected) == bool(diverges)
    for _ in range(len(expected)):
        with suppress(KeyboardInterrupt):
            run(tmp_path / "killed.jsonl", allowed=1)
    assert without_seconds(journal.read(tmp_path / "killed.jsonl")) == without_seconds(expected)
