"""The texts of tasks as a corpus: each text has its task, and no text is in dev or test."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from kdnas.cli import main
from kdnas.evaluation.data import load_task
from kdnas.evaluation.suites import chosen_specs
from kdnas.evaluation.task_texts import parts

TASKS = "glue/cola,glue/mrpc"


def write(file: Path, rows: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))


@pytest.fixture
def data_root(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    single = [{"sentence": f"Sentence {n} is good.", "label": n % 2, "idx": n} for n in range(300)]
    write(root / "glue/cola/train.jsonl.gz", single)
    write(root / "glue/cola/validation.jsonl.gz", [{"sentence": "First 7.", "label": 0, "idx": 0}])
    pairs = [{"sentence1": f"First {n}.", "sentence2": "Shared.", "label": n % 2, "idx": n} for n in range(200)]
    write(root / "glue/mrpc/train.jsonl.gz", pairs)
    write(root / "glue/mrpc/validation.jsonl.gz", [pairs[0] | {"sentence1": "Seen in the test."}])
    write(root / "glue/mrpc/test.jsonl.gz", [pairs[0] | {"sentence1": "Seen in the test."}])
    return root


def test_train_texts_are_written_once_with_their_task_and_without_dev_and_test(
    data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "texts.jsonl.gz"
    given = ["task-texts", "--tasks", TASKS, "--data_root", str(data_root), "--output", str(output)]
    with pytest.raises(SystemExit) as done:
        main(given)
    assert done.value.code == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(output)
    with gzip.open(output, "rt") as file:
        rows = [json.loads(line) for line in file]
    texts = [row["text"] for row in rows]
    assert len(set(texts)) == len(texts)
    loaded = [load_task(spec, data_root).task for spec in chosen_specs(tuple(TASKS.split(",")))]
    held = {part for task in loaded for split in (task.dev, task.test) for text in split.texts for part in parts(text)}
    assert "First 7." in held  # a CoLA test text that is also an MRPC train text
    assert not held & set(texts)
    for task in loaded:
        train = {part for text in task.train.texts for part in parts(text)}
        assert {row["text"] for row in rows if row["task"] == task.name} == train - held


def test_an_input_is_split_into_its_texts() -> None:
    assert parts("one text") == ["one text"]
    assert parts(("a question", "its context")) == ["a question", "its context"]
    assert parts(["words", "of", "one", "line"]) == ["words of one line"]


@pytest.mark.parametrize(
    ("output", "message"), [("texts.csv", "must end in .jsonl.gz"), ("absent/texts.jsonl.gz", "there is no folder")]
)
def test_invalid_outputs_are_refused(
    data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], output: str, message: str
) -> None:
    given = ["--tasks", TASKS, "--data_root", str(data_root), "--output", str(tmp_path / output)]
    with pytest.raises(SystemExit) as done:
        main(["task-texts", *given])
    assert done.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / output).exists()
