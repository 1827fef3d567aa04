"""Evaluators and baselines: full distillation, and the hand-designed shapes that a search is compared with."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from kdnas.distill.options import DistillOptions
from kdnas.errors import DivergenceError, UsageError
from kdnas.models.arch import Arch, SearchSpace
from kdnas.models.table import LatencyTable
from kdnas.models.teacher import Teacher
from kdnas.search import baselines, journal
from kdnas.search.options import SearchOptions
from kdnas.search.outcome import ProxyResult, attempt, one_by_one
from kdnas.search.reward import reward
from kdnas.search.run import run_search, search
from kdnas.store.artifact import Artifact
from kdnas.text.corpus import Corpus

from .search_fixture import fake_evaluate, known_table, latency_ms, recorded, table

SMALL = SearchSpace(layers=(3,), heads=(2, 12), hidden=(288,), ffn=(384,), activation=("gelu", "relu"))
FULL = SearchOptions(evaluator="full", episodes=1, candidates_per_episode=2, strategy="random")
DISTILL = DistillOptions(steps=3, batch_tokens=256, validations=1, validation_sentences=20, pair_fraction=0)


@pytest.mark.slow
def test_full_distillation_saves_each_student(
    tiny_teacher: Teacher, corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = LatencyTable.of(table(tmp_path))
    found = run_search(tmp_path, tiny_teacher, corpus, SMALL, known, FULL, distill=DISTILL)
    candidates = journal.read(found.path / journal.FILE)
    students = [Artifact.load(path, "distill") for path in (tmp_path / "distill").iterdir()]
    losses = {student.results["arch"]: student.results["validation_loss"] for student in students}
    assert {str(one.arch): one.loss for one in candidates} == losses
    assert len(losses) == 2
    assert all(one.tokens == students[0].results["tokens"] for one in candidates)
    assert found.results["proxy_tokens"] == candidates[0].tokens
    longer = run_search(tmp_path, tiny_teacher, corpus, SMALL, known, FULL, distill=replace(DISTILL, steps=4))
    assert longer.path != found.path


def test_full_distillation_refuses_what_it_would_ignore(tiny_teacher: Teacher, corpus: Corpus, tmp_path: Path) -> None:
    known = LatencyTable.of(table(tmp_path))
    with pytest.raises(UsageError, match=r"add --distill\.steps"):
        run_search(tmp_path, tiny_teacher, corpus, SMALL, known, FULL)
    embedding = replace(FULL, proxy=replace(FULL.proxy, objective="embedding"))
    with pytest.raises(UsageError, match=r"set --distill\.objective instead"):
        run_search(tmp_path, tiny_teacher, corpus, SMALL, known, embedding, distill=DISTILL)
    with pytest.raises(UsageError, match="allowed are proxy, full"):
        SearchOptions(evaluator="whole")  # type: ignore[arg-type]


def test_divergence_marks_the_candidate_failed() -> None:
    def diverges(arch: Arch) -> ProxyResult:
        raise DivergenceError("the loss is nan at step 3")

    found = attempt(diverges, Arch(3, 2, 288, 384))
    assert found.failed == "DivergenceError: the loss is nan at step 3"


def test_baselines_are_reported_with_the_search(tmp_path: Path) -> None:
    six, wide = baselines.SHAPES.values()
    archs = [Arch(3, 12, 288, 384), Arch(3, 12, 384, 384), six]
    file = recorded(tmp_path / "losses.csv", archs)
    options = SearchOptions(episodes=1, strategy="random", baselines=True, max_latency_ms=latency_ms(six) * 0.9)
    found = search(options, table(tmp_path).path, replay=file, home=tmp_path)
    assert found.results["candidates"] == 2  # the baseline is too slow to be a candidate
    (row,) = found.results["baselines"]  # the other one was not recorded
    loss = fake_evaluate(six).loss
    expected = reward(loss, latency_ms(six), 8.0)
    assert (row["name"], row["arch"], row["failed"]) == ("6L-384H", str(six), None)
    assert row["loss"] == pytest.approx(loss)
    assert row["reward"] == pytest.approx(expected)
    assert wide not in archs


def test_baselines_are_measured_once(tmp_path: Path) -> None:
    shapes = baselines.SHAPES
    path = tmp_path / baselines.FILE
    first = [
        journal.Candidate(0, 0, shapes["6L-384H"], True, 0.25, 1.0, 0.7, None, 77, 1.0),
    ]

    def killed(arch: Arch) -> ProxyResult:
        raise KeyboardInterrupt

    given = (first, known_table(), SearchOptions())
    with pytest.raises(KeyboardInterrupt):
        baselines.measure_baselines(path, shapes, one_by_one(killed), *given)
    rows = baselines.measure_baselines(path, shapes, one_by_one(lambda _: ProxyResult(float("nan"), 5)), *given)
    assert [(row["loss"], row["tokens"]) for row in rows] == [(0.25, 77), (None, 5)]
    assert rows[1]["failed"] == "the loss is nan"
    assert baselines.measure_baselines(path, shapes, one_by_one(pytest.fail), *given) == rows
    assert len([json.loads(line) for line in path.read_text().splitlines()]) == 2
    assert baselines.possible(SearchSpace(layers=(3,))) == {}
    assert set(baselines.possible(SearchSpace(), [shapes["6L-384H"]])) == {"6L-384H"}
