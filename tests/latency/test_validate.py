"""Validation with a mock worker: its computations, resuming, and that the bound is the largest error."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdnas.errors import KdnasError, UsageError
from kdnas.latency import process
from kdnas.latency.process import WorkerError
from kdnas.latency.protocol import HELD_OUT, WARM_CALLS, LatencyOptions, design, held_out
from kdnas.latency.run import build_table
from kdnas.latency.samples import TEACHER
from kdnas.latency.timing import CHUNK, exhaustive
from kdnas.latency.validate import (
    ValidationOptions,
    evenly,
    kendall_tau,
    run_validation,
    sampling_error,
    summary,
    validated,
)
from kdnas.models.arch import Arch, SearchSpace
from kdnas.models.table import MEASURED, PREDICTED, LatencyTable
from kdnas.models.teacher import Teacher
from kdnas.store.artifact import Artifact
from kdnas.store.json_files import read_jsonl
from kdnas.text.corpus import Corpus

from .worker_fixture import MockWorker

pytestmark = pytest.mark.slow


OPTIONS = LatencyOptions(minutes=2, max_architectures=60, peak_seconds=0)
VALIDATION = ValidationOptions(sentences=50)
REFERENCE_MS = 5.0


def true_ms(arch: Arch, length: float) -> float:
    """A host whose latency depends only on the size."""
    return 0.2 + arch.layer_parameters * (length + 10) * 2e-8


class FakeWorker(MockWorker):
    """Answers by the formula; odd passes of a validation are 2 % slower, and `wrong` is 30 % slower."""

    wrong: Arch | None = None
    deaths = 0
    asked = 0

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        cls = type(self)
        cls.asked += 1
        if cls.deaths:
            cls.deaths -= 1
            raise WorkerError("death")
        arch = Arch(6, 12, 384, 1536) if request["arch"] == TEACHER else Arch.parse(request["arch"])
        if "sentences" in request:
            slow = 1.3 if arch == cls.wrong else 1.0
            values = [slow * true_ms(arch, length) / REFERENCE_MS for length in request["sentences"]]
            return {"arch": request["arch"], "in_references": values, "reference_ms": REFERENCE_MS, "again": 0}
        times = [[true_ms(arch, length) for length in self.setup["lengths"]]] * 4
        return {
            "arch": request["arch"],
            "times_ms": times,
            "references_ms": [REFERENCE_MS] * 5,
        }


@pytest.fixture
def fake_worker(monkeypatch: pytest.MonkeyPatch) -> type[FakeWorker]:
    fresh = type("Fresh", (FakeWorker,), {})
    monkeypatch.setattr(process, "Worker", fresh)
    return fresh


@pytest.fixture
def table(fake_worker: type[FakeWorker], tmp_path: Path, teacher: Teacher, corpus: Corpus) -> Artifact:
    return build_table(tmp_path, teacher, corpus, OPTIONS)


def validation(table: Artifact, home: Path, teacher: Teacher, corpus: Corpus) -> Artifact:
    return run_validation(home, table, teacher, corpus, OPTIONS, VALIDATION)


def test_the_held_out_are_never_fitted() -> None:
    apart = held_out()
    assert len(apart) == HELD_OUT == len(set(apart))
    assert 0.95**HELD_OUT < 0.05
    for seed in (0, 1):
        assert not set(apart) & set(design(seed))
        assert set(apart) | set(design(seed)) == set(SearchSpace())


def test_the_bound_is_the_largest_error(
    fake_worker: type[FakeWorker], table: Artifact, tmp_path: Path, teacher: Teacher, corpus: Corpus
) -> None:
    fake_worker.wrong = held_out()[7]
    found = validation(table, tmp_path, teacher, corpus)
    rows = list(csv.DictReader((found.path / "validation.csv").open()))
    assert [row["arch"] for row in rows] == [str(arch) for arch in held_out()]
    errors = [abs(float(row["error_pct"])) for row in rows]
    assert found.results["bound_pct"] == pytest.approx(max(errors), abs=0.01)
    assert errors.index(max(errors)) == 7
    assert errors[7] == pytest.approx(100 * (1 - 1 / 1.3), abs=3)
    assert found.results["repeatability_pct"] == 0
    assert 0.9 < found.results["kendall_tau"] <= 1
    assert found.results["sampling_error_pct"] < 2
    mean = sum(float(row["latency_ms"]) for row in csv.DictReader((table.path / "table.csv").open()))
    assert found.results["exhaustive_hours"] == pytest.approx(mean / 1000 * 30000 / 3600, abs=0.1)
    assert f"within {found.results['bound_pct']} %" in summary(found)


def test_an_interrupted_validation_resumes(
    fake_worker: type[FakeWorker], table: Artifact, tmp_path: Path, teacher: Teacher, corpus: Corpus
) -> None:
    asked = fake_worker.asked
    whole = validation(table, tmp_path / "other", teacher, corpus)
    assert fake_worker.asked - asked == VALIDATION.passes * HELD_OUT
    fake_worker.asked, fake_worker.deaths = 0, 3
    with pytest.raises(KdnasError, match="died 3 times: death"):
        validation(table, tmp_path, teacher, corpus)
    fake_worker.deaths = 2
    found = validation(table, tmp_path, teacher, corpus)
    assert fake_worker.asked == 3 + 2 + VALIDATION.passes * HELD_OUT
    rows = read_jsonl(found.path / "validation.jsonl")
    assert len({(row["pass"], row["arch"]) for row in rows}) == len(rows) == VALIDATION.passes * HELD_OUT
    assert (found.path / "validation.csv").read_text() == (whole.path / "validation.csv").read_text()


def test_more_runs(
    fake_worker: type[FakeWorker], table: Artifact, tmp_path: Path, teacher: Teacher, corpus: Corpus
) -> None:
    found = run_validation(tmp_path, table, teacher, corpus, OPTIONS, ValidationOptions(sentences=50, runs=5))
    rows = read_jsonl(found.path / "validation.jsonl")
    assert [sum(row["pass"] == number for row in rows) for number in range(10)] == [HELD_OUT] * 10
    assert "50 sentences and 5 runs" in summary(found)


def test_a_seed_draws_predicted_architectures(
    fake_worker: type[FakeWorker], table: Artifact, tmp_path: Path, teacher: Teacher, corpus: Corpus
) -> None:
    options = ValidationOptions(sentences=50, seed=7)
    found = run_validation(tmp_path, table, teacher, corpus, OPTIONS, options)
    rows = list(csv.DictReader((found.path / "validation.csv").open()))
    predicted = {str(row.arch) for row in LatencyTable.of(table).rows if row.source == PREDICTED}
    drawn = [row["arch"] for row in rows]
    assert len(set(drawn)) == HELD_OUT
    assert set(drawn) <= predicted
    assert set(drawn) != {str(arch) for arch in held_out()}
    assert "drawn with seed 7 from the predicted ones" in summary(found)
    assert validated(LatencyTable.of(table), 8) != validated(LatencyTable.of(table), 7)


def test_the_fixed_architectures_are_called_development(
    fake_worker: type[FakeWorker], table: Artifact, tmp_path: Path, teacher: Teacher, corpus: Corpus
) -> None:
    assert "for development; --validation.seed draws others" in summary(validation(table, tmp_path, teacher, corpus))


def test_a_seed_needs_predicted_architectures(table: Artifact) -> None:
    found = LatencyTable.of(table)
    rows = tuple(row if row.id < 58 else replace(row, source=MEASURED) for row in found.rows)
    with pytest.raises(UsageError, match="draws 59 predicted architectures, but this table predicts"):
        validated(replace(found, rows=rows), 7)


def test_another_artifact_is_refused(tmp_path: Path, teacher: Teacher, corpus: Corpus) -> None:
    with pytest.raises(UsageError, match="a latency table is needed"):
        run_validation(tmp_path, corpus.artifact, teacher, corpus, OPTIONS, VALIDATION)


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(UsageError, match="sentences is 10; allowed are 50 to 10000"):
        ValidationOptions(sentences=10)
    with pytest.raises(UsageError, match="tolerance is 2"):
        ValidationOptions(tolerance=2)
    with pytest.raises(UsageError, match=r"runs is 2; allowed are 3 \(as published\) to 1000"):
        ValidationOptions(runs=2)
    with pytest.raises(UsageError, match="seed is -1; it must be at least 0"):
        ValidationOptions(seed=-1)


def test_sentences_are_spread_evenly() -> None:
    lengths = np.arange(10_000) % 100
    chosen = evenly(lengths, 100)
    assert sorted(chosen) == list(range(100))
    assert chosen.mean() == lengths.mean()


def test_sampling_error_by_hand() -> None:
    """Latency equal to the length: the sample's mean is 2, all lengths' mean is 3."""
    lengths = np.array([1, 3])
    assert sampling_error(np.array([1.0, 3.0]), lengths, np.array([3, 3])) == pytest.approx(0.5)
    assert sampling_error(np.array([1.0, 3.0]), lengths, lengths) == 0


def test_kendall_tau_by_hand() -> None:
    assert kendall_tau([1, 2, 3], [10, 20, 30]) == 1
    assert kendall_tau([1, 2, 3], [10, 30, 20]) == pytest.approx(1 / 3, abs=1e-4)


class Clocked:
    """A model whose call takes the length in microseconds, on a simulated clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.calls = 0
        monkeypatch.setattr("kdnas.latency.timing.time.perf_counter_ns", lambda: self.now)

    def __call__(self, length: int) -> None:
        self.calls += 1
        self.now += length * 1000.0


def test_exhaustive_times_each_sentence_once_and_repeats_disturbed_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Clocked(monkeypatch)
    sentences = [{"length": 1 + number % 7} for number in range(CHUNK + 10)]
    references = iter([0.5, 0.5, 0.9, 0.5, 0.5])  # a burst disturbs the second chunk, which is repeated
    values, level, again = exhaustive(model, sentences, lambda: next(references), 0.1)
    assert level == 0.5
    assert again == 2  # the burst also precedes the second attempt
    assert values == pytest.approx([item["length"] / 1000 / 0.5 for item in sentences])
    assert model.calls == len(sentences) + (CHUNK + WARM_CALLS) + 3 * (10 + WARM_CALLS)
