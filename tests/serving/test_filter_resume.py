"""Interrupted filter runs: killed or terminated ones resume to the same result, and those with other settings are refused."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kdnas.errors import UsageError
from kdnas.store.artifact import Artifact

from .filter_fixture import FORM, contents, run, write_documents


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_bytes(
    classifier: Path, sentences: list[str], tmp_path: Path, kdnas: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    texts = [*sentences[:250], " ".join(sentences[:40]), *sentences[250:500]]
    source = write_documents(tmp_path / "docs.jsonl", texts)
    lines = source.read_text().splitlines()
    packed = tmp_path / "docs.jsonl.gz"
    packed.write_bytes(gzip.compress("\n".join([*lines[:100], "{torn", "", *lines[100:]]).encode()))
    assert run(classifier, packed, tmp_path / "whole", shard_documents=12) == 4
    out = tmp_path / "killed"
    words = ["filter", "--model", classifier, "--input", packed, "--output", out, "--form", FORM]
    words += ["--threads", 1, "--shard-documents", 12]
    command = [sys.executable, "-m", "kdnas.cli", *map(str, words)]
    journal = out / "progress.jsonl"
    for shards, pause in ((1, 0.0), (6, 0.003), (15, 0.007)):
        with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
            until = time.monotonic() + 30
            while not journal.exists() or journal.read_bytes().count(b"\n") < shards:
                assert time.monotonic() < until
                assert process.poll() is None
                time.sleep(0.001)
            time.sleep(pause)
            os.kill(process.pid, signal.SIGKILL)
        assert not (out / "manifest.json").exists()
    finished = [json.loads(line) for line in journal.read_text().splitlines()]
    stamps = {name: (out / name).stat().st_mtime_ns for row in finished for name in row["files"]}
    with journal.open("a") as file:
        file.write('{"shard": 99, "li')  # truncated by a crash
    (out / "kept/part-09999.jsonl.gz").write_bytes(b"stray")
    (out / "kept/part-09998.jsonl.gz.partial").write_bytes(b"stray")
    done = kdnas(*words)
    assert done.returncode == 4, done.stderr
    assert done.stdout.splitlines()[-1] == str(out)
    assert contents(out) == contents(tmp_path / "whole")
    assert {name: (out / name).stat().st_mtime_ns for name in stamps} == stamps  # not written twice
    found, expected = Artifact.load(out), Artifact.load(tmp_path / "whole")
    found.verify()
    keys = ("documents", "kept", "dropped", "quarantine", "windows", "tokens", "scores")
    assert {key: found.results[key] for key in keys} == {key: expected.results[key] for key in keys}


def test_an_unfinished_run_with_other_settings_is_refused(classifier: Path, documents: Path, tmp_path: Path) -> None:
    run(classifier, documents, tmp_path / "out")
    plan = json.loads((tmp_path / "out/manifest.json").read_text())
    (tmp_path / "out/manifest.json").unlink()
    (tmp_path / "out/run.json").write_text(json.dumps(plan))
    with pytest.raises(UsageError, match=r"an unfinished run with threshold: 0.5 there, 0.9 now"):
        run(classifier, documents, tmp_path / "out", threshold=0.9)


@pytest.mark.slow
def test_the_same_command_resumes_after_sigterm(
    classifier: Path, sentences: list[str], tmp_path: Path, kdnas: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    source, out = write_documents(tmp_path / "docs.jsonl", sentences), tmp_path / "out"
    words = ["filter", "--model", classifier, "--input", source, "--output", out, "--shard-documents", 20]
    command = [sys.executable, "-m", "kdnas.cli", *map(str, words)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        until = time.monotonic() + 30
        while not (out / "progress.jsonl").exists():
            assert time.monotonic() < until
            time.sleep(0.002)
        process.send_signal(signal.SIGTERM)
        error = process.communicate(timeout=20)[1]
    assert process.returncode == 143
    assert "the same command resumes from here" in error
    assert "Traceback" not in error
    assert kdnas(*words).returncode == 0
    assert Artifact.load(out).results["documents"] == len(sentences)
