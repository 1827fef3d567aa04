"""Killed, terminated and shared filter runs give the rows of one undisturbed run."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdnas.errors import KdnasError, UsageError
from kdnas.filtering.commits import RunFolder
from kdnas.filtering.finish import filter_finish
from kdnas.filtering.options import FilterOptions
from kdnas.filtering.run import filter_documents
from kdnas.filtering.shards import shard_of
from kdnas.filtering.store import create_json
from kdnas.store.artifact import Artifact

from .filter_fixture import FORM, contents, run, run_folder

SMALL = FilterOptions(unit_mb=0.006)
COUNTS = ("documents", "kept", "dropped", "quarantine", "sentences", "tokens", "scores", "drops", "samples")


def count_of(out: Path) -> int:
    """Finished units and pieces."""
    return len(list(out.glob("commits/0*/*.json"))) + len(list(out.glob("work/0*/0*.json")))


def test_killed_runs_resume_to_the_same_files(
    classifier: Path, mixed: Path, tmp_path: Path, kdnas: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    assert run(classifier, mixed, tmp_path / "whole", unit_mb=0.006) == 4
    out = tmp_path / "killed"
    words = ["filter", "--model", classifier, "--input", mixed, "--output", out, "--form", FORM, "--threads", 1]
    words += ["--unit-mb", 0.006, "--verify", "false"]
    command = [sys.executable, "-m", "kdnas.cli", *map(str, words)]
    for wanted, pause in ((0, 0.0), (1, 0.0), (4, 0.004), (9, 0.009), (13, 0.002)):
        with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
            until = time.monotonic() + 60
            while count_of(out) < wanted or not out.exists():
                assert time.monotonic() < until
                if process.poll() is not None:
                    break
                time.sleep(0.001)
            time.sleep(pause)
            process.kill()
    stamps = {file: file.stat().st_mtime_ns for file in out.glob("commits/0*/*.json")}
    assert stamps
    done = kdnas(*words)
    assert done.returncode == 4, done.stderr
    assert {file: file.stat().st_mtime_ns for file in stamps} == stamps  # not committed twice
    assert contents(out) == contents(tmp_path / "whole")
    found, expected = Artifact.load(out).results, Artifact.load(tmp_path / "whole").results
    assert {key: found[key] for key in COUNTS} == {key: expected[key] for key in COUNTS}
    assert not (out / "work").exists()


def test_a_worker_that_died_between_commit_and_rename_loses_nothing(
    classifier: Path, mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(classifier, mixed, tmp_path / "whole", unit_mb=0.006)
    settle, calls = RunFolder.settle, []

    def die(folder: RunFolder, record: dict[str, object], *rest: Any) -> None:
        calls.append(record["unit"])
        if len(calls) == 5:
            raise KeyboardInterrupt
        settle(folder, record, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(RunFolder, "settle", die)
    with pytest.raises(KeyboardInterrupt):
        run(classifier, mixed, tmp_path / "out", unit_mb=0.006)
    monkeypatch.undo()
    run(classifier, mixed, tmp_path / "out", unit_mb=0.006)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_of_two_workers_on_a_unit_one_commits(classifier: Path, mixed: Path, tmp_path: Path) -> None:
    run(classifier, mixed, tmp_path / "whole", unit_mb=0.006)
    out = tmp_path / "out"
    filter_documents(classifier, (str(mixed),), str(out), FORM, 1, SMALL, True, 1, 50)  # unit 1 alone
    folder = run_folder(out)
    (record,) = [json.loads(file.read_text()) for file in out.glob("commits/00000/*.json")]
    late = {name: row | {"scratch": "late", "sha256": "of another worker"} for name, row in record["files"].items()}
    (out / "work/late").write_text("must not be used")
    found = folder.commit(1, [{"files": late, "totals": record["totals"]}])
    assert found == record
    assert not create_json(folder.store, folder.commit_name(1), {})
    run(classifier, mixed, out, unit_mb=0.006)
    assert contents(out) == contents(tmp_path / "whole")


def test_shards_give_the_rows_of_one_run(classifier: Path, mixed: Path, tmp_path: Path) -> None:
    run(classifier, mixed, tmp_path / "whole", unit_mb=0.006)
    out = tmp_path / "out"

    def shard(index: int) -> None:
        filter_documents(classifier, (str(mixed),), str(out), FORM, 1, SMALL, True, index, 4)

    for index in (2, 0, 3):
        shard(index)
    with pytest.raises(KdnasError, match=r"units are not committed: 1 \("):
        filter_finish(str(out))
    shard(1)
    assert not (out / "manifest.json").exists()
    assert filter_finish(str(out)).exit_code == 4
    assert filter_finish(str(out)).exit_code == 4  # finished: the same again
    assert contents(out) == contents(tmp_path / "whole")
    found, expected = Artifact.load(out).results, Artifact.load(tmp_path / "whole").results
    assert {key: found[key] for key in COUNTS} == {key: expected[key] for key in COUNTS}
    with pytest.raises(UsageError, match="no run of `kdnas filter`"):
        filter_finish(str(tmp_path / "elsewhere"))


def test_shards_come_from_slurm_and_kubernetes() -> None:
    assert shard_of(None, None, {}) == (0, 1)
    assert shard_of(1, 4, {"SLURM_ARRAY_TASK_ID": "9", "SLURM_ARRAY_TASK_COUNT": "10"}) == (1, 4)
    array = {
        "SLURM_ARRAY_TASK_ID": "7",
        "SLURM_ARRAY_TASK_COUNT": "4",
        "SLURM_ARRAY_TASK_MIN": "1",
        "SLURM_ARRAY_TASK_STEP": "2",
    }
    assert shard_of(None, None, array) == (3, 4)
    assert shard_of(None, None, {"SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "8"}) == (2, 8)
    assert shard_of(None, None, {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}) == (0, 1)
    assert shard_of(None, 5, {"JOB_COMPLETION_INDEX": "4"}) == (4, 5)
    for index, count, environment, message in (
        (1, None, {}, "give both"),
        (4, 4, {}, "0 to 3 are allowed"),
        (None, 3, {}, "give both"),
        (None, 3, {"JOB_COMPLETION_INDEX": "x"}, "JOB_COMPLETION_INDEX is 'x'"),
    ):
        with pytest.raises(UsageError, match=message):
            shard_of(index, count, environment)


def test_resuming_reads_only_blocks_with_missing_units(
    classifier: Path, mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdnas.filtering.plan.BLOCK_UNITS", 4)
    monkeypatch.setattr("kdnas.filtering.commits.BLOCK_UNITS", 4)
    monkeypatch.setattr("kdnas.filtering.pieces.BLOCK_UNITS", 4)
    out = tmp_path / "out"
    run(classifier, mixed, out, unit_mb=0.006)
    folder = run_folder(out)
    assert len(folder.plan.blocks) > 2
    assert folder.open_blocks() == []
    assert max(len(os.listdir(one)) for one in out.glob("kept/*")) <= 4 * 20  # pieces of the archive
    for sealed in out.glob("commits/0*.json"):
        sealed.chmod(0o644)
    shutil.copytree(out, tmp_path / "again")
    again = run_folder(tmp_path / "again")
    (tmp_path / "again/commits/00001.json").unlink()
    (tmp_path / "again/commits/00001/0000005.json").unlink()
    shutil.rmtree(tmp_path / "again/commits/00000")  # a sealed block: its records are not read again
    assert [unit.number for unit in again.missing()] == [5]
    assert again.seal() == [1]


def test_the_same_command_resumes_after_sigterm(
    classifier: Path, mixed: Path, tmp_path: Path, kdnas: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    out = tmp_path / "out"
    words = ["filter", "--model", classifier, "--input", mixed, "--output", out, "--unit-mb", 0.002]
    command = [sys.executable, "-m", "kdnas.cli", *map(str, words)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        until = time.monotonic() + 60
        while not count_of(out):
            assert time.monotonic() < until
            time.sleep(0.002)
        process.send_signal(signal.SIGTERM)
        error = process.communicate(timeout=30)[1]
    assert process.returncode == 143, error
    assert "the same command resumes from here" in error
    assert "Traceback" not in error
    other = kdnas(*words[:-1], 0.003)
    assert other.returncode == 2
    assert "an unfinished run with unit_mb: 0.002 there, 0.003 now" in other.stderr
    assert kdnas(*words).returncode == 4
