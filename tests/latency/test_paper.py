"""The published protocol with a mock worker, and the published table compared with ours."""

import csv
import json
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdnas.errors import KdnasError
from kdnas.latency import exhaustive, predictor, process
from kdnas.latency.paper import PILOT, estimated_hours, gather_passes, measure_all, table2_archs, table2_ratios
from kdnas.latency.process import WorkerError
from kdnas.latency.protocol import RUNS, LatencyOptions, design, held_out, sample_lengths, stratify
from kdnas.latency.run import build_table, design_for
from kdnas.latency.samples import TEACHER
from kdnas.models.arch import Arch
from kdnas.models.teacher import SHAPE, Teacher, resolve_shape
from kdnas.store.json_files import read_jsonl
from kdnas.text.corpus import Corpus

from .worker_fixture import MockWorker

ARCHITECTURES, SENTENCES = 12, 60
OPTIONS = LatencyOptions(
    protocol="paper", sentences=SENTENCES, max_architectures=ARCHITECTURES, peak_seconds=0, threads=1
)
REFERENCE_MS = 5.0
SPEEDS = (1.0, 0.9, 1.3)  # factors of a sentence's runs, with median 1


def true_ms(name: str, length: float) -> float:
    """A host whose latency is not linear in the length, so that interpolation would be detected."""
    arch = Arch(6, 12, 384, 1536) if name == TEACHER else Arch.parse(name)
    return 0.2 + arch.layer_parameters * (length + 0.1 * length**1.5 + 10) * 2e-8


class FakeWorker(MockWorker):
    """Answers by the formula, with a number of sweeps that differs between windows.

    During the passes it dies at the request numbers in `deaths`, counted over all processes.
    """

    deaths: tuple[int, ...] = ()
    asked = 0
    windows = 0
    answered: Counter[tuple[str, tuple[int, ...]]] = Counter()  # noqa: RUF012

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        cls, name = type(self), request["arch"]
        if "sentences" not in request:
            cls.windows += 1
            sweeps = 6 + cls.windows % 3
            times = [[true_ms(name, length) for length in self.setup["lengths"]]] * sweeps
            return {"arch": name, "times_ms": times, "references_ms": [REFERENCE_MS] * (sweeps + 1)}
        cls.asked += 1
        if cls.asked in cls.deaths:
            raise WorkerError(f"death at request {cls.asked}")
        key = (name, tuple(request["sentences"]))
        speed = SPEEDS[cls.answered[key]]
        cls.answered[key] += 1
        values = [speed * true_ms(name, length) / REFERENCE_MS for length in request["sentences"]]
        return {"arch": name, "in_references": values, "reference_ms": REFERENCE_MS, "again": 1}


@pytest.fixture
def fake_worker(monkeypatch: pytest.MonkeyPatch) -> type[FakeWorker]:
    monkeypatch.setattr(
        predictor, "fit_hat", partial(predictor.fit_linear, lambda archs: np.ones((len(archs), 1)))
    )  # quick
    monkeypatch.setattr(exhaustive, "PART", 25)  # three parts: 25, 25 and 10 sentences
    fresh = type("Fresh", (FakeWorker,), {"answered": Counter()})
    monkeypatch.setattr(process, "Worker", fresh)
    return fresh


def drawn(corpus: Corpus) -> np.ndarray:
    return sample_lengths(corpus.train.lengths, OPTIONS.seed, SENTENCES)


def mean_ms(name: str, sample: np.ndarray) -> float:
    return float(np.mean([true_ms(name, length) for length in sample]))


@pytest.mark.slow
def test_the_table_follows_the_formula(
    fake_worker: type[FakeWorker], tmp_path: Path, teacher: Teacher, corpus: Corpus
) -> None:
    table = build_table(tmp_path, teacher, corpus, OPTIONS)
    sample = drawn(corpus)
    results = table.results
    assert results["protocol"] == "paper"
    assert (results["measured"], results["predicted"]) == (ARCHITECTURES, 2400 - ARCHITECTURES)
    assert results["teacher_latency_ms"] == pytest.approx(mean_ms(TEACHER, sample), abs=1e-4)
    assert results["mean_length"] == pytest.approx(sample.mean(), abs=0.01)
    assert results["windows_discarded"] == RUNS * (ARCHITECTURES + 1) * 3  # each part repeated one chunk
    rows = [row for row in csv.DictReader((table.path / "table.csv").open()) if row["source"] == "measured"]
    assert len(rows) == ARCHITECTURES
    for row in rows:
        name = ",".join(row[field] for field in ("layers", "heads", "hidden", "ffn", "activation"))
        assert Arch.parse(name) in design(0)[:ARCHITECTURES]
        # Combining with the held-out prediction shifts a row. A worse prediction or more variable runs shift it more.
        assert float(row["latency_ms"]) == pytest.approx(mean_ms(name, sample), rel=0.15)
        assert row["samples"] == str(RUNS)


def measured(folder: Path, teacher: Teacher, sample: np.ndarray) -> Any:
    folder.mkdir(exist_ok=True)
    setup = {"seed": OPTIONS.seed, "lengths": stratify(sample).strata.tolist(), "teacher": str(teacher.path)}
    return measure_all(folder, setup, sample, stratify(sample, len(sample)), OPTIONS)


def test_the_median_of_the_runs_follows_the_formula_at_every_length(
    fake_worker: type[FakeWorker], tmp_path: Path, teacher: Teacher, corpus: Corpus
) -> None:
    sample = drawn(corpus)
    found, seconds = measured(tmp_path, teacher, sample)
    lengths = np.unique(sample)
    assert found.archs == design(0)[:ARCHITECTURES]
    for arch, latencies in zip(found.archs, found.latencies, strict=True):
        assert latencies == pytest.approx([true_ms(str(arch), length) for length in lengths])
    assert found.teacher.latencies == pytest.approx([true_ms(TEACHER, length) for length in lengths])
    assert found.level_ms == REFERENCE_MS
    assert found.relative_sd == pytest.approx(np.std(SPEEDS, ddof=1) / np.sqrt(3) / np.mean(SPEEDS))
    assert found.sweeps.tolist() == [RUNS] * ARCHITECTURES
    assert seconds == pytest.approx(sum(row["seconds"] for row in read_jsonl(tmp_path / "samples.jsonl")))


def test_gathering_by_hand() -> None:
    """Sentences of 7, 5 and 7 tokens, two parts, three runs of one model and the teacher."""
    arch = Arch(3, 2, 288, 384)
    runs = {str(arch): [[1.0, 2.0, 3.0], [1.2, 8.0, 2.0], [1.1, 1.0, 9.0]], TEACHER: [[4.0, 5.0, 6.0]] * 3}
    levels = [2.0, 2.0, 2.0, 3.0, 9.0, 9.0]
    rows = []
    for name, values in runs.items():
        for number, run in enumerate(values):
            for part, piece in enumerate((run[:2], run[2:])):
                level = levels[2 * number + part]
                rows.append({"arch": name, "pass": number, "part": part, "in_references": piece, "again": part})
                rows[-1]["reference_ms"] = level
    sample = np.array([7, 5, 7])
    found = gather_passes(rows[::-1], [arch], sample, stratify(sample, 3))
    assert found.level_ms == 2.5  # of 2, 2, 2, 3, 9, 9
    # Medians of the sentences: 1.1, 2, 3; so 5 tokens take 2, and 7 tokens (1.1 + 3) / 2 references.
    assert found.latencies[0] == pytest.approx([2 * 2.5, 2.05 * 2.5])
    assert found.teacher.latencies == pytest.approx([5 * 2.5, 5 * 2.5])
    assert found.teacher.relative_sd == 0
    means = np.array([6.0, 11.2, 11.1])  # sums of each run's three sentences
    assert found.relative_sd == pytest.approx(means.std(ddof=1) / np.sqrt(3) / means.mean())
    assert found.discarded == 6


@pytest.mark.slow
def test_a_killed_run_resumes_without_repeated_requests(
    fake_worker: type[FakeWorker], tmp_path: Path, teacher: Teacher, corpus: Corpus
) -> None:
    whole = RUNS * (ARCHITECTURES + 1) * 3
    fake_worker.deaths = (5, 30, 31, 50, 51, 52)
    with pytest.raises(KdnasError, match="died 3 times: death at request 52"):
        build_table(tmp_path, teacher, corpus, OPTIONS)
    (log,) = tmp_path.rglob("samples.jsonl")
    before = read_jsonl(log)
    assert len(before) == 52 - len(fake_worker.deaths)
    windows = fake_worker.windows
    table = build_table(tmp_path, teacher, corpus, OPTIONS)
    rows = read_jsonl(table.path / "samples.jsonl")
    assert rows[: len(before)] == before
    assert len({(row["pass"], row["arch"], row["part"]) for row in rows}) == len(rows) == whole
    assert fake_worker.asked == whole + len(fake_worker.deaths)
    assert set(fake_worker.answered.values()) == {RUNS}
    assert len(fake_worker.answered) == 3 * (ARCHITECTURES + 1)
    assert fake_worker.windows == windows  # neither the A/A check nor the estimate is repeated
    fake_worker.answered.clear()
    untouched = build_table(tmp_path / "other", teacher, corpus, OPTIONS)
    assert (untouched.path / "table.csv").read_text() == (table.path / "table.csv").read_text()


@pytest.mark.slow
def test_estimated_hours_are_reported_before_the_passes(
    fake_worker: type[FakeWorker],
    tmp_path: Path,
    teacher: Teacher,
    corpus: Corpus,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sample = drawn(corpus)
    strata = stratify(sample).strata
    # Each call, and 1/20 of the overhead of a chunk: eight untimed calls, and nine of the reference.
    mean = np.mean([[true_ms(str(arch), length) for length in strata] for arch in design(0)[:PILOT]])
    part = np.random.default_rng([0, 6]).permutation(sample)[: exhaustive.PART]
    warm_ups = len(set(part.tolist())) / len(part)  # one untimed call for every length of a part
    hours = (
        (ARCHITECTURES + 1) * SENTENCES * RUNS * (1 + warm_ups) * (mean + (8 * mean + 9 * REFERENCE_MS) / 20) / 3.6e6
    )
    fake_worker.deaths = (40, 41, 42)  # by then a third of the parts is finished
    with pytest.raises(KdnasError):
        measured(tmp_path, teacher, sample)
    before, started = capsys.readouterr().err.split("latency-table: started")
    assert "13 models x 60 sentences x 3 runs" in before
    assert f"about {hours:.2g} hours on this host, {hours:.2g} of them left" in before
    assert "the measuring process died" in started
    measured(tmp_path, teacher, sample)
    assert f"about {hours:.2g} hours on this host, {hours * 78 / 117:.2g} of them left" in capsys.readouterr().err


def test_an_interrupted_estimate_resumes(fake_worker: type[FakeWorker], tmp_path: Path) -> None:
    setup = {"seed": 0, "lengths": [10, 20]}
    names = [str(arch) for arch in design(0)[:PILOT]]
    half = [{"arch": name, "times_ms": [[10.0, 30.0]], "references_ms": [3.0, 5.0]} for name in names[:4]]
    log = tmp_path / "pilot.jsonl"
    log.write_text("".join(f"{json.dumps(row)}\n" for row in half))
    hours = estimated_hours(log, setup, 3_600_000)
    assert fake_worker.windows == PILOT - 4
    assert [row["arch"] for row in read_jsonl(log)] == names
    mean = (4 * 20.0 + sum(true_ms(name, length) / 2 for name in names[4:] for length in (10, 20))) / PILOT
    assert hours == pytest.approx(mean + (8 * mean + 9 * 5.0) / 20)


def test_table_2_by_hand() -> None:
    ratios = table2_ratios()
    assert list(ratios) == ["KDNASArch1", "KDNASArch2", "KDNASArch3", "6L-384H", "6L-768H"]
    assert ratios["KDNASArch3"] == (Arch(4, 12, 576, 768), pytest.approx(9.19 / 64.98))
    assert ratios["6L-768H"] == (Arch(6, 12, 768, 3072), pytest.approx(33.21 / 64.98))
    assert [arch for arch, _ in ratios.values()] == table2_archs()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_table_2_comes_first_only_with_the_published_teacher(seed: int, teacher: Teacher) -> None:
    options = LatencyOptions(seed=seed)
    plain = [str(arch) for arch in design(seed)]
    order = design_for(resolve_shape(SHAPE), options)
    apart = set(map(str, held_out()))
    first = [name for name in map(str, table2_archs()) if name not in apart]
    assert len(first) >= 4
    assert order[: len(first)] == first
    assert order[len(first) :] == [name for name in plain if name not in first]
    assert not apart & set(order)
    assert design_for(teacher, options) == plain
    assert design_for(resolve_shape(SHAPE), LatencyOptions(seed=seed, max_architectures=11)) == order[:11]


def test_a_held_out_architecture_of_table_2_does_not_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    apart = held_out()[0]
    monkeypatch.setattr("kdnas.latency.run.table2_archs", lambda: [apart, Arch(4, 12, 576, 768)])
    order = design_for(resolve_shape(SHAPE), LatencyOptions())
    assert order[0] == "4,12,576,768,gelu"
    assert str(apart) not in order
