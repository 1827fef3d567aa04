"""A family in two processes over gloo: the losses of one process. The launcher is used as in tests/distill/test_processes.py."""

import os
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from kdnas.autodistil.family import Family
from kdnas.cli import main
from kdnas.models.teacher import Teacher
from kdnas.store.artifact import Artifact
from kdnas.store.json_files import read_jsonl

pytestmark = pytest.mark.slow

STEPS = 12
OPTIONS = [
    "--steps",
    str(STEPS),
    "--batch_tokens",
    "512",
    "--accumulate",
    "4",
    "--precision",
    "f32",
    "--log_every",
    "1",
]
OPTIONS += ["--layers", "2,3", "--ffn", "24,96", "--heads", "4,12", "--hidden", "48", "--activation", "gelu"]
OPTIONS += ["--validations", "2", "--validation_sentences", "60", "--members_per_pass", "3"]
LAUNCH = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1", "--mixed_precision", "no"]
LAUNCH += ["--dynamo_backend", "no", "--num_processes", "2", "--main_process_port", "0"]


def train(home: Path, teacher: Teacher, corpus_file: Path, launch: list[str], *others: str) -> Artifact:
    """Run the command, with or without the launcher."""
    source = ["--teacher", str(teacher.path), "--corpus", str(corpus_file), "--home", str(home)]
    words = ["autodistil", *OPTIONS, *source, *others]
    if not launch:  # here, which saves the start of a process
        with redirect_stdout(StringIO()) as printed, pytest.raises(SystemExit, match=r"^0$"):
            main(words)
        return Artifact.load(Path(printed.getvalue().strip()))
    done = subprocess.run(
        [sys.executable, *launch, "-m", "kdnas", *words],
        capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [line] = done.stdout.splitlines()
    return Artifact.load(Path(line))


def losses(artifact: Artifact) -> list[float]:
    """Training losses of all updates, then those of the validations."""
    rows = read_jsonl(artifact.path / "L2-3-D48" / "history.jsonl")
    trained = [row["loss"] for row in rows if row["kind"] == "train"]
    assert len(trained) == STEPS
    return trained + [row["validation_loss"] for row in rows if row["kind"] == "validation"]


@pytest.mark.parametrize("schedule", [pytest.param("k-per-pass", marks=pytest.mark.exhaustive), "sandwich"])
def test_two_processes_have_the_losses_of_one(
    schedule: str, tmp_path: Path, tiny_teacher: Teacher, corpus_file: Path
) -> None:
    more = ["--member-schedule", schedule]
    one = train(tmp_path / "one", tiny_teacher, corpus_file, [], *more)
    two = train(tmp_path / "two", tiny_teacher, corpus_file, LAUNCH, *more)
    assert losses(two) == pytest.approx(losses(one), abs=1e-5)
    assert two.results["nets"][0]["tokens"] == one.results["nets"][0]["tokens"]
    ours, theirs = (Family.load(artifact.path).rows for artifact in (one, two))
    assert {arch: row["loss"] for arch, row in ours.items()} == pytest.approx(
        {arch: row["loss"] for arch, row in theirs.items()}, abs=1e-5
    )


def test_several_processes_need_steps(tmp_path: Path, tiny_teacher: Teacher, corpus_file: Path) -> None:
    source = ["--teacher", str(tiny_teacher.path), "--corpus", str(corpus_file), "--home", str(tmp_path)]
    command = [sys.executable, *LAUNCH, "-m", "kdnas", "autodistil", *OPTIONS[2:], *source]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode != 0
    assert "the number of updates cannot be measured; give it with --steps" in done.stderr
    assert not list(tmp_path.iterdir())
