"""Retrieval of the next held-out sentence: its pairs, hand-worked scores, and a run with and without a head."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdnas.evaluation import retrieval as module
from kdnas.evaluation.report import retrieval_rows
from kdnas.evaluation.retrieval import chosen_pairs, following, retrieval, scores_of
from kdnas.models.head import Head
from kdnas.models.pooling import write_modules
from kdnas.models.teacher import Teacher
from kdnas.text.corpus import Corpus


def test_pairs_of_hand_worked_groups() -> None:
    assert following(np.array([0, 0, 0, 1, 2, 2, 3, 3, 3, 3])).tolist() == [0, 4, 6, 8]
    assert following(np.array([0, 1, 2])).tolist() == []


@given(st.lists(st.integers(1, 7), max_size=20))
def test_pairs_are_in_one_group_and_no_sentence_is_in_two(sizes: list[int]) -> None:
    groups = np.repeat(np.arange(len(sizes)), sizes)
    first = following(groups)
    assert (groups[first] == groups[first + 1]).all()
    both = np.concatenate([first, first + 1])
    assert len(set(both.tolist())) == len(both)
    assert len(first) == sum(size // 2 for size in sizes)


def test_scores_of_hand_worked_vectors() -> None:
    """Query 0 finds its document first, query 1 second: (1 + 1 / log2(3)) / 2."""
    documents = np.eye(2)
    teacher = {"query": np.array([[1.0, 0.0], [0.8, 0.6]]), "document": documents}
    student = {"query": documents, "document": documents}
    found = scores_of(teacher, student, in_teachers_space=True)
    whole = (1 + 1 / np.log2(3)) / 2
    assert found["teacher"] == pytest.approx(whole)
    assert found["student"] == found["asymmetric"] == 1
    assert found["retention"] == pytest.approx(1 / whole)
    assert scores_of(teacher, student, in_teachers_space=False)["asymmetric"] is None


def test_pairs_are_limited_in_number_and_tokens(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    split = corpus.validation
    every = chosen_pairs(split, 10**6, 0)
    assert len(every) == len(following(split.groups.numbers())) > 100
    assert len(chosen_pairs(split, 30, 0)) == 30
    assert chosen_pairs(split, 30, 0).tolist() != chosen_pairs(split, 30, 1).tolist()
    monkeypatch.setattr(module, "MOST_TOKENS", 500)
    few = chosen_pairs(split, 10**6, 0)
    assert 400 < int((split.lengths[few] + split.lengths[few + 1]).sum()) <= 500


def student_of(teacher: Teacher, folder: Path, head: Head | None) -> Path:
    folder.mkdir()
    for file in teacher.path.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    write_modules(folder, 96, 64, head=head)
    return folder


def test_a_run_has_an_asymmetric_score_if_the_student_has_a_head(
    tiny_teacher: Teacher, corpus: Corpus, tmp_path: Path
) -> None:
    """The student is the teacher, behind a head that turns its space: alone it is as good, in the teacher's space it is not."""
    turned = np.linalg.qr(np.random.default_rng(0).normal(size=(96, 96)))[0].astype(np.float32)
    heads = {"none": None, "same": Head(np.eye(96, dtype=np.float32), np.zeros(96, np.float32))}
    heads["turned"] = Head(turned, np.zeros(96, np.float32))
    found = {}
    for name, head in heads.items():
        folder = student_of(tiny_teacher, tmp_path / name, head)
        given = (corpus.validation, corpus.pad_id, 64, 60, 0)
        found[name] = retrieval(tiny_teacher.path, folder, *given)["retrieval"]
        assert found[name]["queries"] == 60
        assert found[name]["retention"] == pytest.approx(1, abs=1e-3)
    assert found["none"]["asymmetric"] is None
    assert found["same"]["asymmetric"] == pytest.approx(found["same"]["teacher"])
    assert found["turned"]["asymmetric"] < 0.7 * found["turned"]["teacher"]
    assert found["none"]["teacher"] > 0.15  # chance is 0.04
    assert len(retrieval_rows({"retrieval": found["none"]})) == 1
    assert len(retrieval_rows({"retrieval": found["same"]})) == 2


def test_what_cannot_be_measured_is_explained(
    tiny_teacher: Teacher, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = (corpus.validation, corpus.pad_id, 64, 60, 0)
    folder = student_of(tiny_teacher, tmp_path / "odd", None)
    kinds = json.loads((folder / "modules.json").read_text())
    kinds[1]["type"] = "sentence_transformers.models.CNN"
    (folder / "modules.json").write_text(json.dumps(kinds))
    found = retrieval(folder, tiny_teacher.path, *given)
    assert found["retrieval"] is None
    assert "module CNN is not supported" in found["retrieval_note"]
    monkeypatch.setattr(module, "LEAST", 10**6)
    found = retrieval(tiny_teacher.path, tiny_teacher.path, *given)
    assert found["retrieval"] is None
    assert "--text.group" in found["retrieval_note"]
    assert retrieval_rows(found) == []
