"""Several students side by side: equal to separate runs, one teacher pass a batch, interruptions, a student that diverges."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import kdnas.distill.loop as loop
from kdnas.distill import loaded_teacher
from kdnas.distill.checkpoint import FOLDER
from kdnas.distill.fit import Fitting
from kdnas.distill.hidden_state import TeacherStates
from kdnas.distill.options import DistillOptions
from kdnas.distill.run import distill, run_distill
from kdnas.distill.several import require_several, run_distill_several, students_of
from kdnas.errors import DivergenceError, Terminated, UsageError
from kdnas.models.arch import Arch
from kdnas.models.teacher import Teacher
from kdnas.store.artifact import Artifact
from kdnas.text.corpus import Corpus

from .distill_fixture import ARCH, COMMON, assert_same_run

pytestmark = pytest.mark.slow

STEPS = 8
SETTINGS = COMMON | {"steps": STEPS, "validations": 2}
OPTIONS = DistillOptions(**SETTINGS)
ARCHS = [ARCH, Arch(3, 4, 96, 32), Arch(4, 2, 24, 64, "relu")]
OBJECTIVES = {
    "and relations": replace(OPTIONS, relation_weight=1.0, relation_heads=6),
    "and embeddings": replace(OPTIONS, objective="hidden-state+embedding", matryoshka=(32,)),
}


@pytest.fixture(scope="module", params=OBJECTIVES)
def options(request: pytest.FixtureRequest) -> DistillOptions:
    return OBJECTIVES[request.param]


@pytest.fixture(scope="module")
def separate(home: Path, tiny_teacher: Teacher, corpus: Corpus) -> dict[Arch, Artifact]:
    """Students of separate runs on hidden states."""
    return {arch: run_distill(home / "separate", tiny_teacher, corpus, arch, OPTIONS) for arch in ARCHS}


def assert_same_students(expected: dict[Arch, Artifact], found: dict[Arch, Any]) -> None:
    assert list(found) == list(expected)
    for arch, artifact in found.items():
        assert isinstance(artifact, Artifact)
        assert artifact.path.name == expected[arch].path.name
        assert_same_run(expected[arch], artifact)
        artifact.verify()


def test_students_equal_those_of_separate_runs(
    tmp_path: Path, tiny_teacher: Teacher, corpus: Corpus, options: DistillOptions
) -> None:
    expected = {arch: run_distill(tmp_path / "separate", tiny_teacher, corpus, arch, options) for arch in ARCHS[1:]}
    found = run_distill_several(tmp_path / "together", tiny_teacher, corpus, ARCHS[1:], options)
    assert_same_students(expected, found)


def test_three_students_equal_those_of_separate_runs(
    tmp_path: Path, tiny_teacher: Teacher, corpus: Corpus, separate: dict[Arch, Artifact]
) -> None:
    assert_same_students(separate, run_distill_several(tmp_path, tiny_teacher, corpus, ARCHS, OPTIONS))
    losses = {artifact.results["validation_loss"] for artifact in separate.values()}
    assert len(losses) == len(ARCHS)


def test_the_teacher_runs_once_for_each_batch(
    tmp_path: Path, tiny_teacher: Teacher, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, batches = TeacherStates.__call__, Counter[bytes]()

    def counted(states: TeacherStates, ids: torch.Tensor, mask: torch.Tensor, types: Any = None) -> Any:
        if training:
            batches[ids.numpy().tobytes()] += 1
        return real(states, ids, mask, types)

    begun, training = Fitting.loop, list[int]()
    monkeypatch.setattr(Fitting, "loop", lambda fitting: training.append(1) or begun(fitting))
    monkeypatch.setattr(TeacherStates, "__call__", counted)
    run_distill_several(tmp_path / "alone", tiny_teacher, corpus, ARCHS[:1], OPTIONS)
    alone = batches.copy()
    assert sum(alone.values()) > STEPS * 2
    batches.clear()
    training.clear()
    run_distill_several(tmp_path / "three", tiny_teacher, corpus, ARCHS, OPTIONS)
    assert batches == alone


def test_an_interruption_loses_nothing_and_students_at_different_steps_meet_again(
    tmp_path: Path,
    tiny_teacher: Teacher,
    corpus: Corpus,
    separate: dict[Arch, Artifact],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The power fails in the middle of a round: the first student has a checkpoint of the step, the others of the one before."""
    real, calls = loop.backward, []

    def failing(*arguments: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 2 * len(ARCHS) * 4 + 3:
            raise RuntimeError("power cut")
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "backward", failing)
        with pytest.raises(RuntimeError, match="power cut"):
            run_distill_several(tmp_path, tiny_teacher, corpus, ARCHS, OPTIONS)
    newest = {folder.name: max(folder.glob(f"{FOLDER}/step-*")).name for folder in tmp_path.glob("distill/*.partial")}
    assert sorted(newest.values()) == ["step-000000004", "step-000000004", "step-000000005"]
    assert_same_students(separate, run_distill_several(tmp_path, tiny_teacher, corpus, ARCHS, OPTIONS))


def test_a_signal_saves_the_state_of_all(
    tmp_path: Path,
    tiny_teacher: Teacher,
    corpus: Corpus,
    separate: dict[Arch, Artifact],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = replace(OPTIONS, checkpoint_seconds=1e6)
    real, calls = loop.backward, []

    def interrupted(*arguments: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 2 * len(ARCHS) * 4 + 3:
            raise Terminated
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "backward", interrupted)
        with pytest.raises(Terminated):
            run_distill_several(tmp_path, tiny_teacher, corpus, ARCHS, options)
    saved = sorted(path.name for path in tmp_path.glob(f"distill/*.partial/{FOLDER}/step-*"))
    assert saved == ["step-000000004", "step-000000004", "step-000000005"]
    assert_same_students(separate, run_distill_several(tmp_path, tiny_teacher, corpus, ARCHS, options))


def test_a_signal_between_two_loops_saves_the_state_of_all(
    tmp_path: Path, tiny_teacher: Teacher, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: object, __: object, ___: object) -> Any:
        raise Terminated

    options = replace(OPTIONS, checkpoint_seconds=1e6)
    monkeypatch.setattr("kdnas.distill.side_by_side.mean_losses_of_all", interrupted)
    with pytest.raises(Terminated):
        run_distill_several(tmp_path, tiny_teacher, corpus, ARCHS, options)
    assert len(list(tmp_path.glob(f"distill/*.partial/{FOLDER}/step-000000000"))) == len(ARCHS)


CHILD = """
import json, sys
from pathlib import Path
from kdnas.distill.options import DistillOptions
from kdnas.distill import loaded_teacher
from kdnas.distill.several import run_distill_several
from kdnas.models.arch import Arch
from kdnas.models.teacher import resolve_teacher
from kdnas.store.artifact import Artifact
from kdnas.text.corpus import Corpus

home, teacher, corpus, options, archs, sentences = sys.argv[1:]
loaded_teacher.SAMPLE_SENTENCES = int(sentences)
run_distill_several(
    Path(home), resolve_teacher(teacher), Corpus(Artifact.load(Path(corpus)), 0),
    list(map(Arch.parse, archs.split(";"))), DistillOptions(**json.loads(options)),
)
"""


@pytest.mark.exhaustive  # the tests above stop it at the same moments, in their own process
def test_kill_9(tmp_path: Path, tiny_teacher: Teacher, corpus: Corpus, separate: dict[Arch, Artifact]) -> None:
    arguments = [
        str(tmp_path),
        tiny_teacher.spec,
        str(corpus.artifact.path),
        json.dumps(SETTINGS),
        ";".join(map(str, ARCHS)),
        str(loaded_teacher.SAMPLE_SENTENCES),
    ]
    for step in (2, 5):
        process = subprocess.Popen([sys.executable, "-c", CHILD, *arguments], stderr=subprocess.DEVNULL)
        until = time.monotonic() + 120
        while not list(tmp_path.glob(f"distill/*.partial/{FOLDER}/step-{step:09d}")):
            assert process.poll() is None, "finished before it could be killed"
            assert time.monotonic() < until
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    found = run_distill_several(tmp_path, tiny_teacher, corpus, ARCHS, OPTIONS)
    assert {artifact.manifest["attempts"] for artifact in found.values() if isinstance(artifact, Artifact)} == {3}
    assert_same_students(separate, found)


def test_finished_students_are_not_trained_again(
    tmp_path: Path,
    tiny_teacher: Teacher,
    corpus: Corpus,
    separate: dict[Arch, Artifact],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_distill(tmp_path, tiny_teacher, corpus, ARCHS[1], OPTIONS)
    real, begun = Fitting.loop, list[Arch]()

    def noted(fitting: Fitting) -> Any:
        begun.append(fitting.objective.student.config.num_hidden_layers)
        return real(fitting)

    monkeypatch.setattr(Fitting, "loop", noted)
    assert_same_students(separate, run_distill_several(tmp_path, tiny_teacher, corpus, ARCHS, OPTIONS))
    assert begun == [ARCHS[0].layers, ARCHS[2].layers]
    assert_same_students(separate, run_distill_several(tmp_path, tiny_teacher, corpus, ARCHS, OPTIONS))
    assert len(begun) == 2


def test_students_that_were_trained_but_not_published_are_only_published(
    tmp_path: Path,
    tiny_teacher: Teacher,
    corpus: Corpus,
    separate: dict[Arch, Artifact],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, published = os.rename, []

    def dying(source: Any, target: Any) -> None:
        if Path(source).suffix == ".partial" and Path(source).parent.name == "distill":
            published.append(target)
            if len(published) == 2:
                raise RuntimeError("power cut")
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("kdnas.store.artifact.os.rename", dying)
        with pytest.raises(RuntimeError, match="power cut"):
            run_distill_several(tmp_path, tiny_teacher, corpus, ARCHS, OPTIONS)
    monkeypatch.setattr("kdnas.distill.side_by_side.LoadedTeacher", lambda *_: pytest.fail("worked again"))
    assert_same_students(separate, run_distill_several(tmp_path, tiny_teacher, corpus, ARCHS, OPTIONS))


def test_one_student_diverges_and_the_others_finish(
    tmp_path: Path,
    tiny_teacher: Teacher,
    corpus: Corpus,
    separate: dict[Arch, Artifact],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, bad = loop.backward, ARCHS[1]

    def diverging(objective: Any, *arguments: Any) -> torch.Tensor:
        losses = real(objective, *arguments)
        return losses * float("nan") if objective.student.config.num_hidden_layers == bad.layers else losses

    with monkeypatch.context() as patch:
        patch.setattr(loop, "backward", diverging)
        found = run_distill_several(tmp_path, tiny_teacher, corpus, ARCHS, OPTIONS)
    assert list(found) == ARCHS
    assert isinstance(found[bad], DivergenceError)
    rest = {arch: artifact for arch, artifact in separate.items() if arch != bad}
    assert_same_students(rest, {arch: found[arch] for arch in rest})
    with pytest.raises(DivergenceError, match=f"^{bad}: the loss is nan"):
        students_of(found)
    assert_same_students(separate, run_distill_several(tmp_path, tiny_teacher, corpus, ARCHS, OPTIONS))


def test_the_command_returns_one_result_a_student(
    tmp_path: Path, tiny_teacher: Teacher, corpus_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"teacher": tiny_teacher.spec, "corpus": str(corpus_file), "home": tmp_path / "home"}
    archs = "; ".join(map(str, ARCHS[:2]))
    output = tmp_path / "students"
    for _ in range(2):  # the second call replaces the output of the first
        found = distill(replace(OPTIONS, steps=3), arch=archs, output=output, **given)
        assert isinstance(found, list)
        assert [one.results["arch"] for one in found] == list(map(str, ARCHS[:2]))
        assert all((one.path / "model.safetensors").is_file() for one in found if one.path is not None)
        assert {one.path.parent for one in found if one.path is not None} == {output}


@pytest.mark.parametrize(
    ("archs", "changes", "message"),
    [
        ([ARCH, ARCH], {}, "give each architecture once"),
        (ARCHS, {"steps": None}, "several architectures need --steps: with --minutes each student"),
        (ARCHS, {"trackers": ("mlflow",)}, "follows one run at a time"),
    ],
)
def test_bad_input(archs: list[Arch], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        require_several(archs, replace(OPTIONS, **changes))


def test_a_student_deeper_than_its_teacher_is_refused_before_the_corpus_is_read(
    tmp_path: Path, tiny_teacher: Teacher
) -> None:
    with pytest.raises(UsageError, match="the student has 5 layers, its teacher 4"):
        distill(
            OPTIONS, arch=f"{ARCH};5,4,24,64,gelu", teacher=tiny_teacher.spec, corpus="missing.jsonl", home=tmp_path
        )
