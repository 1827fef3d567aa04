"""The real command, killed with -9 in the middle and typed again: real workers, real models, all 2400 rows."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from kdnas.arch import Arch, SearchSpace
from kdnas.artifact import Artifact, read_jsonl
from kdnas.corpus import Corpus, TextOptions, build_corpus
from kdnas.teacher import Teacher
from latency.protocol import LatencyOptions, design
from latency.run import build_table, latency_table, summary
from latency.table import LatencyTable, read_rows

ARCHITECTURES = 10
# The tests' host is busy, so nearly every window is accepted; discarding is tested on made-up logs.
OPTIONS = LatencyOptions(minutes=8, threads=1, tolerance=0.95, max_architectures=ARCHITECTURES)
TEXT = TextOptions(topic="topic", group="group", seq_len=64, validation_share=0.2)


@dataclass
class Interrupted:
    """What the killed command left, and what the same command then made of it."""

    home: Path
    artifact: Artifact
    log_at_kill: bytes
    workers_left: list[psutil.Process]
    corpus: Corpus


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_teacher: Teacher, corpus_file: Path) -> Interrupted:
    home = tmp_path_factory.mktemp("table-home")
    flags = f"--minutes 8 --threads 1 --tolerance 0.95 --max-architectures {ARCHITECTURES} --text.topic topic"
    flags += " --text.group group --text.seq_len 64 --text.validation_share 0.2"
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


def test_finished_samples_are_kept_and_none_is_repeated(run: Interrupted) -> None:
    whole = run.log_at_kill[: run.log_at_kill.rfind(b"\n") + 1]
    assert whole.count(b"\n") >= 4
    assert (run.artifact.path / "samples.jsonl").read_bytes().startswith(whole)
    samples = read_jsonl(run.artifact.path / "samples.jsonl")
    measured = Counter(sample["arch"] for sample in samples if sample["kept"])
    teachers = measured.pop("teacher")
    assert measured == Counter([str(arch) for arch in design(0)[:ARCHITECTURES]])
    assert teachers == len({sample["process"] for sample in samples}) >= 2
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
    assert 0 < results["teacher_p50_ms"] <= results["teacher_p90_ms"]
    assert results["teacher_latency_ms"] > 0
    held_out = results["held_out"]
    assert held_out["median_abs_pct"] <= held_out["p90_abs_pct"] <= held_out["max_abs_pct"]
    assert set(held_out["baselines"]) == {"flops", "parameters", "layer-sum"}
    assert 0 < results["minutes"] < 8
    assert manifest["config"]["options"]["threads"] == 1
    assert manifest["config"]["host"]["cpu"] == manifest["host"]["cpu"]
    assert set(manifest["files"]) == {"lengths.json", "samples.jsonl", "table.csv"}
    assert run.artifact.path.parent.name == "latency-table"


def test_table_has_every_architecture(run: Interrupted) -> None:
    rows = read_rows(run.artifact.path / "table.csv")
    assert [row.arch for row in rows] == list(SearchSpace())
    assert {row.arch for row in rows if row.source == "measured"} == set(design(0)[:ARCHITECTURES])
    teacher_ms = run.artifact.results["teacher_latency_ms"]
    for row in rows:
        assert row.source in ("measured", "predicted")
        assert 0 < row.p50_ms <= row.p90_ms
        assert row.latency_ms > 0
        assert row.relative_sd >= 0
        assert row.teacher_ratio == pytest.approx(row.latency_ms / teacher_ms, rel=1e-3)
    table = LatencyTable.load(run.artifact.path)
    assert table.teacher_latency_ms == teacher_ms
    # Fifty times the work cannot come out cheaper, however busy the host.
    assert table.latency_ms(Arch(12, 12, 768, 3072, "gelu")) > table.latency_ms(Arch(3, 12, 288, 384, "gelu"))


def test_lengths_are_those_of_the_corpus(run: Interrupted) -> None:
    lengths = json.loads((run.artifact.path / "lengths.json").read_text())
    assert lengths["sentences"] == sum(lengths["counts"]) == 10_000
    assert set(lengths["values"]) <= set(run.corpus.train.lengths.tolist())
    mean = sum(weight * length for weight, length in zip(lengths["weights"], lengths["strata"], strict=True))
    assert mean == pytest.approx(float(run.corpus.train.lengths.mean()), rel=0.05)


def test_the_same_command_again_measures_nothing(
    run: Interrupted, tiny_teacher: Teacher, corpus_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run.artifact.path / "samples.jsonl").stat().st_mtime_ns
    latency_table(OPTIONS, teacher=tiny_teacher.spec, corpus=str(corpus_file), text=TEXT, home=run.home)
    printed = capsys.readouterr()
    assert printed.out == f"{run.artifact.path}\n"
    assert printed.err.strip() == summary(run.artifact)
    assert (run.artifact.path / "samples.jsonl").stat().st_mtime_ns == before


def test_summary_names_teacher_fastest_and_error(run: Interrupted) -> None:
    text = summary(run.artifact)
    fastest = min(read_rows(run.artifact.path / "table.csv"), key=lambda row: row.latency_ms)
    assert f"{ARCHITECTURES} architectures measured, {2400 - ARCHITECTURES} predicted" in text
    assert f"teacher  {run.artifact.results['teacher_latency_ms']:8.2f} ms" in text
    assert fastest.arch.name in text
    assert f"median {run.artifact.results['held_out']['median_abs_pct']} %" in text
