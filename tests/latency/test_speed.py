"""The speed comparison: plausible rows, hand-computed values, resuming, and refused input."""

import shutil
from pathlib import Path

import numpy as np
import pytest

import kdnas.latency.speed as module
from kdnas.errors import UsageError
from kdnas.export.checkpoint import open_checkpoint
from kdnas.export.options import ExportOptions
from kdnas.export.run import run_export
from kdnas.latency.speed import (
    STUDENT,
    TEACHER,
    TOKENIZER,
    SpeedOptions,
    from_text,
    one_round,
    run_speed,
    summarise,
    threads_note,
)
from kdnas.models.teacher import Teacher
from kdnas.store.artifact import Artifact
from kdnas.store.json_files import append_jsonl
from kdnas.text.corpus import Corpus

pytestmark = pytest.mark.slow


OPTIONS = SpeedOptions(minutes=0.2, sentences=12, rounds=2, threads=1)
ENGINES = [TEACHER, STUDENT, "student openvino-int8", "student openvino-f32"]
ENGINES += ["student onnxruntime-int8", "student onnxruntime-f32"]


@pytest.fixture(scope="module")
def exported(home: Path, tiny_teacher: Teacher, corpus: Corpus) -> Artifact:
    """The export that the export tests make of this model, in the same home: made once per test run."""
    options = ExportOptions(calibration_sentences=24, parity_sentences=24)
    return run_export(home, tiny_teacher.path, open_checkpoint(str(tiny_teacher.path)).digest, corpus, options)


def test_rows_are_plausible(
    home: Path, tiny_teacher: Teacher, corpus: Corpus, exported: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = run_speed(home, tiny_teacher, corpus, tiny_teacher.path, exported.path, OPTIONS)
    found = artifact.results
    assert (found["sentences"], found["threads"], found["rounds"]) == (12, 1, 2)
    assert [row["name"] for row in found["rows"]] == ENGINES
    for row in found["rows"]:
        assert 0 < row["p50_ms"] <= row["p90_ms"]
        assert row["mean_ms"] > 0
        assert row["speedup_low"] <= row["speedup"] <= row["speedup_high"]
    assert found["rows"][0]["speedup"] == 1
    assert found["from_text"]["name"] == "student openvino-int8"
    assert found["from_text"]["tokenise_mean_ms"] > 0
    monkeypatch.setattr(module, "_work", lambda *_: pytest.fail("timed again"))
    assert run_speed(home, tiny_teacher, corpus, tiny_teacher.path, exported.path, OPTIONS) == artifact


def test_an_interrupted_run_keeps_its_rounds(tmp_path: Path) -> None:
    log = tmp_path / "rounds.jsonl"
    calls: list[int] = []
    rows = [np.array([[1, 2, 3]])] * 12
    engines = {TEACHER: calls.append, "student x": calls.append}
    old = {TEACHER: [1.0] * 12, "student x": [0.5] * 12}
    append_jsonl(log, {"round": 1, "times_ms": old})
    rounds = module._measure(log, engines, rows, SpeedOptions(rounds=3, sentences=12))
    assert len(rounds) == 3
    assert rounds[0] == old
    assert len(log.read_text().splitlines()) == 3
    again = module._measure(log, engines, rows, SpeedOptions(rounds=3, sentences=12))
    assert again == rounds


def test_minutes_limit_the_rounds_but_two_always_run(tmp_path: Path) -> None:
    import time

    engines = {TEACHER: lambda _: time.sleep(0.002)}
    rows = [np.array([[1, 2, 3]])] * 10
    options = SpeedOptions(minutes=1e-6, rounds=50)
    assert len(module._measure(tmp_path / "log", engines, rows, options)) == 2


def test_every_engine_runs_every_sentence_in_blocks_of_random_order() -> None:
    calls: list[tuple[str, int]] = []

    def engine(name: str) -> module.Call:
        return lambda index: calls.append((name, index))

    times = one_round({name: engine(name) for name in "abc"}, 25, np.random.default_rng(0))
    assert {name: len(values) for name, values in times.items()} == {"a": 25, "b": 25, "c": 25}
    assert all(value > 0 for values in times.values() for value in values)
    for name in "abc":
        own = [index for who, index in calls if who == name]
        # Each block starts with untimed calls on the preceding sentences.
        assert own == [*range(17, 25), *range(10), *range(2, 10), *range(10, 20), *range(12, 20), *range(20, 25)]
    turns = [name for index, (name, _) in enumerate(calls) if index == 0 or calls[index - 1][0] != name]
    assert len({tuple(turns[start : start + 3]) for start in range(0, len(turns), 3)}) > 1


def test_statistics_by_hand() -> None:
    rounds = [
        {TEACHER: [8.0, 12.0], "student x": [1.0, 3.0], TOKENIZER: [1.0, 1.0]},
        {TEACHER: [20.0, 20.0], "student x": [2.0, 2.0], TOKENIZER: [0.5, 0.5]},
    ]
    teacher, student = summarise(rounds)
    assert teacher["mean_ms"] == 15
    assert teacher["speedup"] == teacher["speedup_low"] == teacher["speedup_high"] == 1
    assert (student["mean_ms"], student["p50_ms"], student["p90_ms"]) == (2, 2, 2.7)
    assert (student["speedup_low"], student["speedup"], student["speedup_high"]) == (5.25, 7.5, 9.75)  # from 5 and 10
    assert "same_engine_speedup" not in student
    with_teacher = summarise([times | {"teacher x": [3.0, 5.0]} for times in rounds])
    assert [row["name"] for row in with_teacher] == [TEACHER, "student x", "teacher x"]
    assert with_teacher[1]["same_engine_speedup"] == 2
    assert "same_engine_speedup" not in with_teacher[2]
    text = from_text(rounds, "student x")
    assert text["tokenise_mean_ms"] == 0.75
    assert text["speedup"] == pytest.approx((11 / 3 + 20.5 / 2.5) / 2, abs=1e-3)


def test_different_numbers_of_threads_are_said() -> None:
    """An export that was made with one thread is not compared with PyTorch on two without a word."""
    assert threads_note({"onnxruntime-int8": 2, "openvino-f32": 2}, 2) is None
    said = threads_note({"onnxruntime-int8": 1, "openvino-f32": 2}, 2)
    assert said == "threads differ: PyTorch 2, onnxruntime-int8 1, as at the export; --threads 2 gives all the same"


def test_the_table_has_one_line_per_engine() -> None:
    row = {"p50_ms": 1.0, "p90_ms": 2.0, "mean_ms": 1.5, "speedup": 3.25, "speedup_low": 3.0, "speedup_high": 3.5}
    text = {"name": "student x", "tokenise_mean_ms": 0.05, "speedup": 2.75}
    found = {"rows": [{"name": "teacher x", **row}, {"name": "student x", **row}], "from_text": text}
    header, teacher, student, last = module.lines_of(found)
    assert all(name in header for name in ("engine", "p50 ms", "p90 ms", "mean ms", "faster"))
    assert [line.split()[2:6] for line in (teacher, student)] == [["1.00", "2.00", "1.50", "3.25"]] * 2
    assert "2.75" in last


def test_an_export_with_a_cut_vocabulary_uses_its_own_tokenizer(
    tmp_path: Path, home: Path, tiny_teacher: Teacher, corpus: Corpus
) -> None:
    options = ExportOptions(24, 24, forms=("onnxruntime-f32",), vocabulary="corpus", vocabulary_tokens=100)
    digest = open_checkpoint(str(tiny_teacher.path)).digest
    cut = run_export(tmp_path, tiny_teacher.path, digest, corpus, options)
    found = run_speed(home, tiny_teacher, corpus, tiny_teacher.path, cut.path, OPTIONS).results
    assert [row["name"] for row in found["rows"]] == [TEACHER, STUDENT, "student onnxruntime-f32"]


def test_the_teacher_is_timed_in_the_same_engine(
    home: Path, tiny_teacher: Teacher, corpus: Corpus, exported: Artifact
) -> None:
    given = (tiny_teacher, corpus, tiny_teacher.path, exported.path, OPTIONS)
    found = run_speed(home, *given, exported_teacher=exported.path).results
    names = [row["name"] for row in found["rows"]]
    assert names == [*ENGINES, *(name.replace("student", "teacher") for name in ENGINES[2:])]
    for row in found["rows"]:
        student = row["name"].startswith("student")
        assert ("same_engine_speedup" in row) == student
        if student and row["name"] != STUDENT:
            assert row["same_engine_speedup_low"] <= row["same_engine_speedup"] <= row["same_engine_speedup_high"]


def test_invalid_folders_are_refused(
    tmp_path: Path, home: Path, tiny_teacher: Teacher, teacher: Teacher, corpus: Corpus, exported: Artifact
) -> None:
    with pytest.raises(UsageError, match="no finished artifact"):
        run_speed(home, tiny_teacher, corpus, tiny_teacher.path, tmp_path, OPTIONS)
    other = shutil.copytree(tiny_teacher.path, tmp_path / "other")
    config = (other / "config.json").read_text()
    (other / "config.json").write_text(config.replace('"vocab_size": 4000', '"vocab_size": 999'))
    with pytest.raises(UsageError, match="vocabulary of 999, the teacher's has 4000"):
        run_speed(home, tiny_teacher, corpus, other, exported.path, OPTIONS)
    for wrong in ({"minutes": 0}, {"sentences": 3}, {"rounds": 1}, {"threads": 0}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            SpeedOptions(**wrong)
