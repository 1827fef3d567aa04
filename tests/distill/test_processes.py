"""Training in two processes over gloo: the same losses as in one, also after a kill, and uneven batches are rejected.

Without MPI, the launcher's `--cpu` starts one process; `--multi_gpu` starts several, even without a GPU.
"""

import os
import subprocess
import sys
import time
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import psutil
import pytest

from kdnas.cli import main
from kdnas.distill import loaded_teacher
from kdnas.distill.checkpoint import FOLDER
from kdnas.models.teacher import Teacher
from kdnas.store.artifact import Artifact
from kdnas.store.json_files import read_jsonl
from kdnas.text.corpus import Corpus

STEPS = 12
OPTIONS = ["--steps", str(STEPS), "--batch_tokens", "512", "--precision", "f32", "--validation_sentences", "60"]
OPTIONS += ["--log_every", "1", "--arch", "2,4,24,64,gelu", "--checkpoint_seconds", "0"]
LAUNCH = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1", "--mixed_precision", "no"]
LAUNCH += ["--dynamo_backend", "no", "--num_processes", "2", "--main_process_port", "0"]


def start(home: Path, teacher: Teacher, corpus_file: Path, *others: str) -> subprocess.Popen[str]:
    """Start the command with accelerate's launcher."""
    source = ["--teacher", str(teacher.path), "--corpus", str(corpus_file), "--home", str(home)]
    return subprocess.Popen(
        [sys.executable, *LAUNCH, "-m", "kdnas", "distill", *OPTIONS, *source, *others],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def result(process: subprocess.Popen[str]) -> Artifact:
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    [line] = out.splitlines()
    return Artifact.load(Path(line))


def losses(artifact: Artifact) -> list[float]:
    rows = [row for row in read_jsonl(artifact.path / "history.jsonl") if row["kind"] == "train"]
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    return [row["loss"] for row in rows]


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one_also_after_a_kill(
    tmp_path: Path, tiny_teacher: Teacher, corpus: Corpus, corpus_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loaded_teacher, "SAMPLE_SENTENCES", 1000)  # as in the processes of the launcher
    source = ["--teacher", str(tiny_teacher.path), "--corpus", str(corpus_file), "--home", str(tmp_path / "one")]
    # In this process, which is quicker.
    with redirect_stdout(StringIO()) as printed, pytest.raises(SystemExit, match=r"^0$"):
        main(["distill", *OPTIONS, *source, "--accumulate", "4"])
    one = Artifact.load(Path(printed.getvalue().strip()))
    expected = pytest.approx(losses(one), abs=1e-5)
    first = start(tmp_path / "two", tiny_teacher, corpus_file, "--accumulate", "4")
    until = time.monotonic() + 200
    while not list(tmp_path.glob(f"two/distill/*.partial/{FOLDER}/step-*[3-9]")):
        assert first.poll() is None, first.communicate()
        assert time.monotonic() < until
        time.sleep(0.01)
    whole = [psutil.Process(first.pid), *psutil.Process(first.pid).children(recursive=True)]
    assert len(whole) >= 3, "the launcher and two processes"
    for process in whole:
        process.kill()
    first.communicate()
    two = result(start(tmp_path / "two", tiny_teacher, corpus_file, "--accumulate", "4"))
    assert two.manifest["attempts"] == 2
    assert losses(two) == expected
    assert two.results["tokens"] == one.results["tokens"]
    assert two.results["validation_loss"] == pytest.approx(one.results["validation_loss"], abs=1e-5)


def test_the_process_group_is_destroyed_before_the_interpreter_shuts_down() -> None:
    code = """if True:
        import atexit
        import torch.distributed as group
        atexit.register(lambda: print(group.is_initialized()))  # runs last
        group.init_process_group("gloo", store=group.HashStore(), rank=0, world_size=1)
        from kdnas.distill.loop import make_accelerator
        make_accelerator("f32")
        assert group.is_initialized()
    """
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["False"]


@pytest.mark.slow
def test_accumulate_must_be_a_multiple_of_processes(tmp_path: Path, tiny_teacher: Teacher, corpus_file: Path) -> None:
    process = start(tmp_path, tiny_teacher, corpus_file, "--accumulate", "3")
    _, errors = process.communicate(timeout=200)
    assert process.returncode != 0
    assert "accumulate is 3; with 2 processes give a multiple of 2" in errors
