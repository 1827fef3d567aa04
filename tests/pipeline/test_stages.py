"""The whole pipeline on a tiny teacher and real sentences, killed in each kind of stage and run again."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from kdnas.cli import main
from kdnas.models.teacher import Teacher

pytestmark = pytest.mark.slow


CONFIG = {
    "text": {"topic": "topic", "group": "group", "seq_len": 64, "validation_fraction": 0.2},
    "space": {"layers": [3], "hidden": [288], "ffn": [384, 512]},
    "latency": {"minutes": 20, "max_architectures": 10, "tolerance": 0.9, "peak_seconds": 0},
    "search": {
        "episodes": 2,
        "candidates_per_episode": 2,
        "proxy": {"tokens": 2000, "validation_sentences": 64},
    },
    "distill": {
        "steps": 8,
        "batch_tokens": 512,
        "validations": 1,
        "validation_sentences": 64,
        "checkpoint_seconds": 0,
    },
    "refine": {
        "steps": 4,
        "batch_tokens": 512,
        "validations": 1,
        "validation_sentences": 64,
        "checkpoint_seconds": 0,
    },
    "export": {"calibration_sentences": 16, "parity_sentences": 16, "recipes": ["static", "dynamic"]},
    "evaluation": {
        "minutes": 0.5,
        "epochs": 1,
        "sentences": 200,
        "map_sentences": 200,
        "topics": 3,
        "topic_train": 60,
        "topic_test": 40,
    },
    "speed": {"minutes": 0.05, "sentences": 20},
}
STAGES = ("latency-table", "search", "distill", "refine", "export", "evaluation", "classifier", "speed")
KILLED = (
    "latency-table",
    "search",
    "distill",
    "export",
    "evaluation",
)  # refine runs as distill does, classifier as export


def finished_artifacts(home: Path) -> dict[str, str]:
    """Every finished artifact and its finish time."""
    return {str(file): json.loads(file.read_text())["finished"] for file in home.glob("*/*/manifest.json")}


def kill_in_stage(command: list[str], stage: str, delay: float) -> int:
    """Run until the stage has started, wait, kill the process group with SIGKILL, and return the exit code."""
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.rstrip().endswith(f"] {stage}"):
            time.sleep(delay)
            os.killpg(process.pid, signal.SIGKILL)
            break
    process.stderr.read()
    return process.wait()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, tiny_teacher: Teacher, corpus_file: Path) -> Path:
    """Artifacts of a pipeline that was killed in several stages."""
    folder = tmp_path_factory.mktemp("pipeline")
    home, config = folder / "home", folder / "tiny.yaml"
    config.write_text(yaml.safe_dump(CONFIG | {"teacher": str(tiny_teacher.path), "corpus": str(corpus_file)}))
    command = [sys.executable, "-m", "kdnas.cli", "pipeline", "--config", str(config), "--home", str(home)]
    before: dict[str, str] = {}
    for number, stage in enumerate(KILLED):
        code = kill_in_stage(command, stage, delay=0.5 + 0.5 * number)
        assert code in (-signal.SIGKILL, 0), f"{stage}: exit {code}"
        now = finished_artifacts(home)
        assert before.items() <= now.items(), f"{stage}: a finished artifact was lost or made again"
        before = now
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert before.items() <= finished_artifacts(home).items()
    assert result.stdout.splitlines()[-1] == str(home / "latest" / "report.html")
    assert "Traceback" not in result.stderr
    return home


def test_every_stage_left_a_finished_artifact(home: Path) -> None:
    listed = json.loads((home / "latest" / "artifacts.json").read_text())
    assert set(listed) == {"corpus", *STAGES}
    manifests = {name: json.loads((Path(path) / "manifest.json").read_text()) for name, path in listed.items()}
    assert all(manifest["host"]["cpu"] for manifest in manifests.values())
    assert sum(manifest["attempts"] > 1 for manifest in manifests.values()) >= 3  # the kills fell inside stages
    assert not list(home.rglob("*.partial"))
    assert manifests["classifier"]["results"]["labelled_texts"] == 120  # int8 was evaluated on the task's test texts


def test_no_candidate_was_evaluated_twice(home: Path) -> None:
    [journal] = home.glob("search/*/journal.jsonl")
    rows = [json.loads(line) for line in journal.read_text().splitlines()]
    assert [row["number"] for row in rows] == sorted({row["number"] for row in rows})
    assert len({row["arch"] for row in rows}) == len(rows) == 4


def test_the_student_loads_as_a_stock_model(home: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    folder = home / "latest" / "student"
    model, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    states = model(**tokenizer("A short sentence.", return_tensors="pt")).last_hidden_state
    assert states.shape[2] == 288
    assert states.isfinite().all()


def test_the_encoder_embeds_and_the_classifier_filters(home: Path, corpus_file: Path, tmp_path: Path) -> None:
    from kdnas.export.session import Session

    vectors = Session(home / "latest" / "encoder").predict(["One sentence.", "Another one."])
    assert vectors.shape == (2, 288)
    documents = tmp_path / "docs.jsonl"
    documents.write_text("".join(corpus_file.read_text().splitlines(keepends=True)[:50]))
    label = Session(home / "latest" / "classifier").labels[0]
    command = [sys.executable, "-m", "kdnas.cli", "filter", "--model", str(home / "latest" / "classifier")]
    command += ["--input", str(documents), "--output", str(tmp_path / "out"), "--label", label]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    files = [file for fate in ("kept", "dropped") for file in (tmp_path / "out" / fate).rglob("*.jsonl")]
    lines = [line for file in files for line in file.read_text().splitlines()]
    assert len(lines) == 50


def test_the_report_names_the_winner(home: Path) -> None:
    [manifest] = home.glob("search/*/manifest.json")
    winner = json.loads(manifest.read_text())["results"]["winner"]
    layers, heads, hidden, ffn, activation = winner.split(",")
    page = (home / "latest" / "report.html").read_text()
    assert f"L{layers}-H{heads}-D{hidden}-F{ffn}-{activation}" in page


def test_report_command_writes_the_report_again(home: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "kdnas.cli",
        "report",
        "--run",
        str(home / "latest"),
        "--out",
        str(tmp_path / "r.html"),
    ]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "r.html").stat().st_size > 1_000_000
    assert (tmp_path / "r.md").read_text() == (home / "latest" / "report.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--corpus", "/no/such/file.jsonl"], 2, "no such file"),
        (["--teacher", "no-such-folder"], 2, "no such folder"),
        (["--hap", "/no/such/set"], 2, "/no/such/set"),
        (["--distill.stepz", "3"], 2, "did you mean '--distill.steps'"),
        (["--distill.steps", "many"], 2, "many"),
        (["--space.layers", "[10, 12]"], 2, "deeper than its teacher of 6 layers"),
        (["--space.heads", "[5]"], 2, "choose from [2, 3, 4, 6, 12]"),
    ],
)
def test_invalid_input_is_rejected_before_any_work(
    arguments: list[str], code: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["pipeline", "--home", str(tmp_path / "home"), *arguments])
    assert stopped.value.code == code
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not finished_artifacts(tmp_path / "home")
