"""The head of a student that is refined: fitted again to the changed states, and none where there was none."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import kdnas.distill.loop as loop
from kdnas.distill.options import DistillOptions, RefineOptions
from kdnas.distill.run import run_distill, run_refine
from kdnas.evaluation.embedder import open_embedder
from kdnas.models.folder import model_digest
from kdnas.models.head import read_head
from kdnas.models.teacher import Teacher
from kdnas.store.artifact import Artifact
from kdnas.store.digest import file_sha256
from kdnas.text.corpus import Corpus

from .distill_fixture import ARCH, COMMON

pytestmark = pytest.mark.slow

REFINE = RefineOptions(**COMMON | {"steps": 8}, peak_lr=3e-3, relation_heads=4)


@pytest.fixture(scope="module")
def student(home: Path, tiny_teacher: Teacher, corpus: Corpus) -> Path:
    """A student with a head."""
    options = DistillOptions(**COMMON, objective="embedding")
    return run_distill(home / "refined-head", tiny_teacher, corpus, ARCH, options).path / "student"


@pytest.fixture(scope="module")
def refined(home: Path, tiny_teacher: Teacher, corpus: Corpus, student: Path) -> Artifact:
    return run_refine(home / "refined-head", tiny_teacher, corpus, student, model_digest(student), REFINE)


def distance(folder: Path, teacher: Teacher, corpus: Corpus, tmp_path: Path) -> float:
    """Mean of 1 - cosine on held-out sentences, by the vectors that users get."""
    texts = corpus.validation.texts[:200]
    ours, theirs = (open_embedder(str(one), "pytorch", tmp_path).vectors(texts) for one in (folder, teacher.path))
    return float(1 - (ours * theirs).sum(1).mean())


def test_the_head_is_fitted_to_the_refined_states(
    refined: Artifact, student: Path, tiny_teacher: Teacher, corpus: Corpus, tmp_path: Path
) -> None:
    folder, before = refined.path / "student", read_head(student)
    after = read_head(folder)
    assert before is not None
    assert after is not None
    assert after.weight.shape == before.weight.shape == (96, 24)
    found = distance(folder, tiny_teacher, corpus, tmp_path)
    assert found == pytest.approx(refined.results["embedding_distance"], rel=0.2)  # other sentences, and token weights
    stale = tmp_path / "stale"
    stale.mkdir()
    for file in (path for path in folder.rglob("*") if path.is_file()):
        (stale / file.relative_to(folder)).parent.mkdir(exist_ok=True)
        (stale / file.relative_to(folder)).write_bytes(file.read_bytes())
    (stale / "2_Dense" / "model.safetensors").write_bytes((student / "2_Dense" / "model.safetensors").read_bytes())
    assert found < 0.95 * distance(stale, tiny_teacher, corpus, tmp_path)


def test_the_folder_loads_in_sentence_transformers(refined: Artifact, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    texts, folder = ["How do I sort an array?", "A short one."], str(refined.path / "student")
    found = SentenceTransformer(folder, device="cpu").encode(texts)
    assert found.shape == (2, 96)
    np.testing.assert_allclose(found, open_embedder(folder, "pytorch", tmp_path).vectors(texts), atol=1e-4)


def test_a_student_without_a_head_gets_none(tiny_teacher: Teacher, corpus: Corpus, tmp_path: Path) -> None:
    made = run_distill(tmp_path, tiny_teacher, corpus, ARCH, DistillOptions(**COMMON | {"steps": 2}))
    folder = made.path / "student"
    found = run_refine(tmp_path, tiny_teacher, corpus, folder, model_digest(folder), replace(REFINE, steps=2))
    assert read_head(found.path / "student") is None
    assert "embedding_distance" not in found.results


def test_an_interrupted_run_ends_with_the_same_head(
    refined: Artifact,
    student: Path,
    tiny_teacher: Teacher,
    corpus: Corpus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, calls = loop.backward, []

    def interrupted(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == 9:
            raise KeyboardInterrupt
        return real(*arguments)  # type: ignore[arg-type]

    given = (tmp_path, tiny_teacher, corpus, student, model_digest(student), REFINE)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "backward", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_refine(*given)
    again = run_refine(*given)
    assert again.manifest["attempts"] == 2
    name = "student/2_Dense/model.safetensors"
    assert file_sha256(again.path / name) == file_sha256(refined.path / name)
    assert again.results["embedding_distance"] == refined.results["embedding_distance"]
