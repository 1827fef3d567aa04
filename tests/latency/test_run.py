"""The real command, killed with SIGKILL and run again: real workers, real models, all 2400 rows."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest

from kdnas.latency.predictor import Fit
from kdnas.latency.protocol import LatencyOptions, design, stratify
from kdnas.latency.run import build_table, latency_table, summary, table_rows
from kdnas.latency.samples import Measurement, Measurements
from kdnas.latency.timing import ROUNDS
from kdnas.models.arch import Arch, SearchSpace
from kdnas.models.table import LatencyTable, read_rows
from kdnas.models.teacher import Teacher
from kdnas.store.artifact import Artifact
from kdnas.store.json_files import read_jsonl
from kdnas.text.corpus import Corpus, build_corpus
from kdnas.text.readers import TextOptions

pytestmark = pytest.mark.slow


ARCHITECTURES = 10
# The tests' host is busy, so nearly every window is accepted; discarding is tested on synthetic logs.
OPTIONS = LatencyOptions(minutes=8, threads=1, tolerance=0.95, max_architectures=ARCHITECTURES, peak_seconds=0.3)
TEXT = TextOptions(topic="topic", group="group", seq_len=16, validation_fraction=0.2)


def test_rows_by_hand(tiny_teacher: Teacher) -> None:
    """One measured architecture, at 1 and 3 ms over lengths 10 and 20; all others predicted at 2 and 2 ms."""
    lengths = stratify(np.array([10, 10, 20, 20]), 2)
    arch, other = Arch(4, 12, 576, 768, "relu"), Arch(4, 12, 576, 768, "silu")
    measurements = Measurements(
        archs=[arch],
        latencies=np.array([[1.0, 3.0]]),
        relative_sd=np.array([0.05]),
        sweeps=np.array([7]),
        teacher=Measurement(np.array([3.0, 5.0]), 0.01),
        level_ms=4.0,
        discarded=0,
        readmitted=0,
    )
    # The held-out prediction is 3 % higher, less than the measurement's error of 5 %, so its error has the minimum, 1 %.
    fit = Fit(lambda archs: np.full((len(archs), 2), 2.0), "none", np.array([3.0]), {})
    joined = 1.03 ** (25 / 26)
    sd = 0.01 * math.sqrt(25 / 26)
    rows = table_rows(measurements, fit, lengths, tiny_teacher, None)
    found = {row.arch: row for row in rows}
    row = found[arch]
    figures = (row.latency_ms, row.p50_ms, row.p90_ms, row.p99_ms, row.teacher_ratio)
    assert figures == pytest.approx(np.array([2.0, 1.0, 3.0, 3.0, 0.5]) * joined)
    assert (row.low_ms, row.high_ms) == pytest.approx(
        (2 * joined / math.exp(1.96 * sd), 2 * joined * math.exp(1.96 * sd))
    )
    assert (row.source, row.samples, row.relative_sd) == ("measured", 7, pytest.approx(sd))
    # 4 layers, 15 tokens: 2 * 4 * 15 * (4 * 576 * 576 + 2 * 576 * 768 + 2 * 15 * 576) operations.
    assert row.gflops == pytest.approx(120 * (1_327_104 + 884_736 + 17_280) / 1e9)
    assert row.layer_parameters_millions == arch.layer_parameters / 1e6 < row.parameters_millions
    row = found[other]
    assert (row.latency_ms, row.source, row.samples) == (2.0, "predicted", 0)
    assert row.relative_sd == pytest.approx(0.03)
    assert row.high_ms == pytest.approx(2 * math.exp(1.96 * 0.03))
    assert sum(row.source == "measured" for row in rows) == 1


@dataclass
class Interrupted:
    """The state that the killed command left, and the result of the resumed command."""

    home: Path
    artifact: Artifact
    log_at_kill: bytes
    workers_left: list[psutil.Process]
    corpus: Corpus


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_teacher: Teacher, corpus_file: Path) -> Interrupted:
    home = tmp_path_factory.mktemp("table-home")
    flags = f"--minutes 8 --threads 1 --tolerance 0.95 --max-architectures {ARCHITECTURES} --peak-seconds 0.3"
    flags += " --text.topic topic --text.group group --text.seq_len 16 --text.validation_fraction 0.2"
    command = [sys.executable, "-m", "kdnas.cli", "latency-table", *flags.split(), "--home", str(home)]
    command += ["--teacher", tiny_teacher.spec, "--corpus", str(corpus_file)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        log = wait_for_lines(home, 4, process)
        workers = psutil.Process(process.pid).children(recursive=True)
        os.kill(process.pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(workers, timeout=60)
    left = log.read_bytes()
    corpus = build_corpus(home, str(corpus_file), TEXT, tiny_teacher)
    return Interrupted(home, build_table(home, tiny_teacher, corpus, OPTIONS), left, alive, corpus)


def wait_for_lines(home: Path, count: int, process: subprocess.Popen[str]) -> Path:
    """The log of the table that `process` builds, once it has `count` lines."""
    deadline = time.monotonic() + 400
    while time.monotonic() < deadline:
        for log in home.glob("latency-table/*.partial/samples.jsonl"):
            if log.read_bytes().count(b"\n") >= count:
                return log
        if process.poll() is not None:
            break
        time.sleep(0.2)
    process.kill()
    raise AssertionError(f"no {count} samples: {process.communicate()[1]}")


def test_no_worker_outlives_a_killed_parent(run: Interrupted) -> None:
    assert run.workers_left == []


def test_finished_samples_are_kept_and_not_repeated(run: Interrupted) -> None:
    whole = run.log_at_kill[: run.log_at_kill.rfind(b"\n") + 1]
    assert whole.count(b"\n") >= 4
    assert (run.artifact.path / "samples.jsonl").read_bytes().startswith(whole)
    samples = read_jsonl(run.artifact.path / "samples.jsonl")
    measured = Counter(sample["arch"] for sample in samples if sample["kept"])
    measured.pop("teacher")
    assert measured == Counter([str(arch) for arch in design(0)[:ARCHITECTURES]])
    # Once per process; on a busy host some of these windows may be discarded.
    teachers = [sample["process"] for sample in samples if sample["arch"] == "teacher"]
    assert teachers == sorted({sample["process"] for sample in samples})
    assert len(teachers) >= 2
    assert [sample["number"] for sample in samples] == list(range(1, len(samples) + 1))
    assert run.artifact.manifest["attempts"] == 2


def test_manifest(run: Interrupted) -> None:
    results, manifest = run.artifact.results, run.artifact.manifest
    assert results["engine"] == "pytorch-f32"
    assert results["threads"] == 1
    assert results["sentences"] == 10_000
    assert results["measured"] == ARCHITECTURES
    assert results["predicted"] == 2400 - ARCHITECTURES
    assert results["windows_discarded"] == sum(
        not sample["kept"] for sample in read_jsonl(run.artifact.path / "samples.jsonl")
    )
    assert 0 < results["teacher_p50_ms"] <= results["teacher_p90_ms"] <= results["teacher_p99_ms"]
    assert results["mean_length"] == pytest.approx(float(run.corpus.train.lengths.mean()), rel=0.05)
    assert results["teacher_latency_ms"] > 0
    held_out = results["held_out"]
    assert held_out["median_abs_pct"] <= held_out["p90_abs_pct"] <= held_out["max_abs_pct"]
    assert set(held_out["baselines"]) == {"flops", "parameters", "layer-sum", "hat"}
    assert 0 < results["minutes"] < 8
    assert manifest["config"]["options"]["threads"] == 1
    assert manifest["config"]["host"]["cpu"] == manifest["host"]["cpu"]
    assert set(manifest["files"]) == {"check.jsonl", "lengths.json", "roofline.json", "samples.jsonl", "table.csv"}
    assert results["roofline"]["gflops"] > 0
    assert results["roofline"]["bandwidth_gbs"] > 0
    assert run.artifact.path.parent.name == "latency-table"


def test_table_has_every_architecture(run: Interrupted) -> None:
    rows = read_rows(run.artifact.path / "table.csv")
    assert [row.arch for row in rows] == list(SearchSpace())
    assert {row.arch for row in rows if row.source == "measured"} == set(design(0)[:ARCHITECTURES])
    teacher_ms = run.artifact.results["teacher_latency_ms"]
    predicted_sd = {row.relative_sd for row in rows if row.source == "predicted"}
    assert len(predicted_sd) == 1  # the held-out error, the same for all
    seq_len = round(run.artifact.results["mean_length"])
    for row in rows:
        assert row.source in ("measured", "predicted")
        fewest, most = ROUNDS if row.source == "measured" else (0, 0)
        assert fewest <= row.samples <= most
        assert 0 < row.p50_ms <= row.p90_ms <= row.p99_ms
        assert 0 < row.low_ms <= row.latency_ms <= row.high_ms
        assert row.high_ms / row.latency_ms == pytest.approx(math.exp(1.96 * row.relative_sd), rel=1e-3)
        assert row.gflops == pytest.approx(row.arch.flops(seq_len) / 1e9, abs=1e-5)
        assert row.limit_ms > 0
        assert row.limit_share == pytest.approx(row.limit_ms / row.latency_ms, rel=0.01, abs=1e-4)
        assert row.relative_sd >= 0
        assert row.teacher_ratio == pytest.approx(row.latency_ms / teacher_ms, rel=1e-3)
    table = LatencyTable.load(run.artifact.path)
    assert table.teacher_latency_ms == teacher_ms
    # Fifty times the work is slower even on a busy host.
    assert table.latency_ms(Arch(12, 12, 768, 3072, "gelu")) > table.latency_ms(Arch(3, 12, 288, 384, "gelu"))


def test_lengths_come_from_the_corpus(run: Interrupted) -> None:
    lengths = json.loads((run.artifact.path / "lengths.json").read_text())
    assert lengths["sentences"] == sum(lengths["counts"]) == 10_000
    assert set(lengths["values"]) <= set(run.corpus.train.lengths.tolist())
    mean = sum(weight * length for weight, length in zip(lengths["weights"], lengths["strata"], strict=True))
    assert mean == pytest.approx(float(run.corpus.train.lengths.mean()), rel=0.05)


def test_the_same_command_again_measures_nothing(
    run: Interrupted, tiny_teacher: Teacher, corpus_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run.artifact.path / "samples.jsonl").stat().st_mtime_ns
    found = latency_table(OPTIONS, teacher=tiny_teacher.spec, corpus=str(corpus_file), text=TEXT, home=run.home)
    assert found.path == run.artifact.path
    printed = capsys.readouterr()
    assert printed.out == ""
    page = run.home / "latency-pytorch-f32.html"
    assert summary(run.artifact) in printed.err
    assert printed.err.strip().endswith(f"report: {page}")
    assert "started" not in printed.err
    assert "physical limit" in page.read_text().lower()
    assert (run.artifact.path / "samples.jsonl").stat().st_mtime_ns == before


def test_summary_has_teacher_fastest_and_error(run: Interrupted) -> None:
    text = summary(run.artifact)
    fastest = min(read_rows(run.artifact.path / "table.csv"), key=lambda row: row.latency_ms)
    assert f"{ARCHITECTURES} architectures measured, {2400 - ARCHITECTURES} predicted" in text
    assert f"teacher  {run.artifact.results['teacher_latency_ms']:8.2f} ms" in text
    assert fastest.arch.name in text
    assert f"median {run.artifact.results['held_out']['median_abs_pct']} %" in text
