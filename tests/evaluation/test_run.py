"""A whole evaluation, resuming after a kill, and refused inputs."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForSequenceClassification

from kdnas.errors import UsageError
from kdnas.evaluation.evaluating import teacher_rates
from kdnas.evaluation.options import LARGE_RATES, SMALL_RATES, EvaluationOptions
from kdnas.evaluation.report import show
from kdnas.evaluation.run import evaluate, resolve_student, run_evaluation
from kdnas.models.teacher import Teacher
from kdnas.store.artifact import Artifact
from kdnas.text.corpus import Corpus, build_corpus
from kdnas.text.readers import TextOptions

SIZES: dict[str, Any] = {
    "sentences": 100,
    "map_sentences": 100,
    "topics": 3,
    "topic_train": 40,
    "topic_test": 10,
    "epochs": 1,
    "teacher_learning_rates": [1e-3],
    "student_learning_rates": [2e-3],
}
TEXT = TextOptions(topic="topic", group="group", seq_len=128, validation_fraction=0.2)
SCRIPT = """
import json, sys
from pathlib import Path
from kdnas.evaluation.evaluating import teacher_rates
from kdnas.evaluation.options import EvaluationOptions
from kdnas.evaluation.run import resolve_student, run_evaluation
from kdnas.store.artifact import Artifact
from kdnas.text.corpus import Corpus
from kdnas.models.teacher import resolve_teacher
home, model, corpus, hap = map(Path, sys.argv[1:5])
options = EvaluationOptions(hap=hap, **json.loads(sys.argv[6]))
corpus = Corpus(Artifact.load(corpus), int(sys.argv[5]))
run_evaluation(home, resolve_teacher(str(model)), corpus, *resolve_student(model), options)
"""


def timeless(value: Any) -> Any:
    """Results without measured times."""
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items() if key != "seconds"}
    return value


@pytest.fixture(scope="module")
def hap_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("hap") / "set.jsonl"
    words = ("kind", "nasty")
    long = " and so on" * 50  # more than 128 tokens
    rows = [{"text": f"number {n} is a {words[n % 2]} remark{long * (n % 5 == 0)}", "label": n % 2} for n in range(200)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture(scope="module")
def own_corpus(tmp_path_factory: pytest.TempPathFactory, tiny_teacher: Teacher, corpus_file: Path) -> Corpus:
    """A corpus that is built with the tiny teacher, as in the command."""
    return build_corpus(tmp_path_factory.mktemp("whole"), str(corpus_file), TEXT, tiny_teacher)


@pytest.fixture(scope="module")
def evaluation(tiny_teacher: Teacher, own_corpus: Corpus, hap_file: Path) -> Artifact:
    """An evaluation without interruption, with the teacher as the student."""
    home = own_corpus.artifact.path.parent.parent
    options = EvaluationOptions(hap=hap_file, **SIZES)
    return run_evaluation(home, tiny_teacher, own_corpus, *resolve_student(tiny_teacher.path), options)


def test_results_have_all_values_of_the_report(evaluation: Artifact) -> None:
    results = evaluation.results
    assert results["explained_variance"] == pytest.approx(1, abs=1e-5)
    assert results["recall_at_10"] == 1.0
    assert results["sentences"] == 100
    assert results["retrieval"]["retention"] == results["retrieval"]["teacher"] / results["retrieval"]["student"] == 1
    assert results["retrieval"]["asymmetric"] is None  # the teacher has no head
    for name, classes in (("topic", 3), ("hap", 2)):
        task = results[name]
        assert len(task["labels"]) == classes
        assert task["metric"] == "macro-F1"
        assert task["retention"] == pytest.approx(task["student"] / task["teacher"])
        assert task["runs"]["teacher"]["learning_rate"] == 1e-3
        assert task["runs"]["student"]["learning_rate"] == 2e-3
        assert task["test_examples"] == sum(task["classes"]["test"].values())
        assert (task["runs"]["teacher"]["train_examples"], task["plan"]["epochs"]) == (task["train_examples"], 1)
    assert set(results["hap"]["average_precision"]) == {"teacher", "student"}
    assert 0 <= results["hap"]["false_positive_rate"]["student"] <= 1
    assert json.loads((evaluation.path / "evaluation.json").read_text()) == results


def test_texts_that_are_cut_are_noted(evaluation: Artifact) -> None:
    splits = evaluation.results["hap"]["splits"]
    assert re.search(r"; \d+ of \d+ \(\S+ %\) test rows are cut at 128 tokens$", splits), splits
    assert evaluation.results["hap_note"] == splits
    assert "are cut at" not in evaluation.results["topic"]["splits"]


def test_student_classifiers_are_saved_and_load(evaluation: Artifact) -> None:
    evaluation.verify()
    folders = sorted(path.name for path in (evaluation.path / "classifiers").iterdir())
    assert folders == ["hap", "topic"]  # only the student's classifiers, and no temporary folders
    model = AutoModelForSequenceClassification.from_pretrained(evaluation.path / "classifiers" / "hap")
    assert model.config.id2label == {0: "not-hap", 1: "hap"}
    card = (evaluation.path / "classifiers" / "hap" / "README.md").read_text()
    assert f"{evaluation.results['hap']['student']:.4f}" in card


def test_the_table_shows_scores_and_notes(evaluation: Artifact, capsys: pytest.CaptureFixture[str]) -> None:
    show(evaluation.results)
    printed = capsys.readouterr()
    assert f"{evaluation.results['topic']['student']:.4f}" in printed.err
    assert f"{evaluation.results['retrieval']['student']:.4f}" in printed.err
    assert printed.out == ""
    show(evaluation.results | {"hap": None, "hap_note": "give it with --hap"})
    assert "give it with --hap" in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_run_repeats_only_unfinished_parts(
    evaluation: Artifact, tmp_path: Path, tiny_teacher: Teacher, own_corpus: Corpus, hap_file: Path
) -> None:
    arguments = [
        tmp_path,
        tiny_teacher.path,
        own_corpus.artifact.path,
        hap_file,
        str(own_corpus.pad_id),
        json.dumps(SIZES),
    ]
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, *arguments], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("evaluation/*.partial/parts/topic-teacher.json")):
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline, "the first parts are missing after two minutes"
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    (partial,) = tmp_path.glob("evaluation/*.partial")
    finished = {file.name: file.stat().st_mtime_ns for file in (partial / "parts").glob("*.json")}
    assert {"geometry.json", "topic-plan.json", "topic-teacher.json"} <= set(finished)
    assert "hap-student.json" not in finished
    # Leftovers of a kill while a classifier, or the part after it, is written.
    for folder in ("topic.tmp", "hap"):
        (partial / "classifiers" / folder).mkdir(parents=True, exist_ok=True)
        (partial / "classifiers" / folder / "torn.bin").write_text("torn")

    resumed = run_evaluation(
        tmp_path,
        tiny_teacher,
        own_corpus,
        *resolve_student(tiny_teacher.path),
        EvaluationOptions(hap=hap_file, **SIZES),
    )
    assert resumed.manifest["attempts"] == 2
    for name, written in finished.items():
        assert (resumed.path / "parts" / name).stat().st_mtime_ns == written
    assert timeless(resumed.results) == timeless(evaluation.results)
    assert set(resumed.manifest["files"]) == set(evaluation.manifest["files"])
    weights = "classifiers/topic/model.safetensors"
    assert resumed.manifest["files"][weights] == evaluation.manifest["files"][weights]


def test_a_finished_evaluation_is_reused_if_the_hap_set_has_moved(
    evaluation: Artifact, tmp_path: Path, tiny_teacher: Teacher, own_corpus: Corpus, hap_file: Path
) -> None:
    moved = tmp_path / hap_file.name
    moved.write_bytes(hap_file.read_bytes())
    home = evaluation.path.parent.parent
    options = EvaluationOptions(hap=moved, **SIZES)
    again = run_evaluation(home, tiny_teacher, own_corpus, *resolve_student(tiny_teacher.path), options)
    assert again.path == evaluation.path
    assert again.manifest == evaluation.manifest


def test_the_command_shows_a_table_and_returns_the_artifact(
    evaluation: Artifact,
    tiny_teacher: Teacher,
    own_corpus: Corpus,
    corpus_file: Path,
    hap_file: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = EvaluationOptions(hap=hap_file, **SIZES)
    home = own_corpus.artifact.path.parent.parent
    found = evaluate(tiny_teacher.path, options, str(tiny_teacher.path), str(corpus_file), TEXT, home)
    assert found.path == evaluation.path
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "explained variance" in printed.err


def test_an_invalid_hap_set_is_refused_before_any_work(
    tmp_path: Path, tiny_teacher: Teacher, own_corpus: Corpus
) -> None:
    options = EvaluationOptions(hap=tmp_path / "none.jsonl", **SIZES)
    with pytest.raises(UsageError, match="no such file or folder"):
        run_evaluation(tmp_path, tiny_teacher, own_corpus, *resolve_student(tiny_teacher.path), options)
    assert not (tmp_path / "evaluation").exists()


def test_a_student_is_found_in_an_artifact_or_refused(tmp_path: Path, tiny_teacher: Teacher) -> None:
    with pytest.raises(UsageError, match=r"config\.json is missing; give a Hugging Face folder"):
        resolve_student(tmp_path)
    (tmp_path / "student").symlink_to(tiny_teacher.path)
    (tmp_path / "manifest.json").write_text(json.dumps({"schema": 1, "kind": "refine"}))
    assert resolve_student(tmp_path) == (tmp_path / "student", resolve_student(tiny_teacher.path)[1])


def test_a_student_with_another_vocabulary_is_refused(
    tmp_path: Path, tiny_teacher: Teacher, own_corpus: Corpus
) -> None:
    for file in tiny_teacher.path.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tokenizer = json.loads((tmp_path / "tokenizer.json").read_text())
    del tokenizer["model"]["vocab"]["true"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(UsageError, match="vocabulary differs from that of teacher"):
        run_evaluation(tmp_path, tiny_teacher, own_corpus, *resolve_student(tmp_path), EvaluationOptions(**SIZES))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sentences": 5}, "sentences is 5; at least 100"),
        ({"minutes": 0}, "minutes is 0"),
        ({"epochs": 0}, "epochs is 0"),
        ({"student_learning_rates": ()}, "student_learning_rates is"),
        ({"teacher_learning_rates": (2.0,)}, "between 0 and 1"),
    ],
)
def test_options_out_of_range_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        EvaluationOptions(**given)


@pytest.mark.parametrize(("hidden", "rates"), [(288, SMALL_RATES), (384, SMALL_RATES), (768, LARGE_RATES)])
def test_wide_teachers_get_smaller_learning_rates(tmp_path: Path, hidden: int, rates: tuple[float, ...]) -> None:
    shape = {"num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 4 * hidden, "hidden_act": "gelu"}
    shape |= {"vocab_size": 100, "max_position_embeddings": 512, "type_vocab_size": 2}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_size": hidden, **shape}))
    assert teacher_rates(tmp_path) == rates


def test_the_command_line_sets_the_options() -> None:
    from kdnas.arguments import parse
    from kdnas.commands import load_command

    values = parse(
        "evaluate",
        load_command("evaluate"),
        ["--student", "somewhere", "--minutes", "2", "--student-learning-rates", "[1e-4,3e-4]", "--text.seq_len", "64"],
    )
    assert values["student"] == Path("somewhere")
    assert values["options"] == EvaluationOptions(minutes=2, student_learning_rates=(1e-4, 3e-4))
    assert values["text"] == TextOptions(seq_len=64)
