"""Suites of embeddings: metrics against hand-worked values and libraries, tasks, and a run with a teacher."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from kdnas.errors import UsageError
from kdnas.evaluation.embedder import open_embedder, prompted
from kdnas.evaluation.embedding_metrics import found_at_k, ndcg_at_k, pair_precision, v_measure
from kdnas.evaluation.embedding_run import RESULT, run_embeddings
from kdnas.evaluation.embedding_tasks import chosen_tasks, read_texts
from kdnas.evaluation.harness import suites
from kdnas.evaluation.reading import NoDataError
from kdnas.evaluation.suite_options import SuiteOptions
from kdnas.models.head import Prompts
from kdnas.models.teacher import Teacher

PARAGRAPHS = ("Paris is the capital of France.", "Bread is made of flour.", "The moon circles the earth.")
QUESTIONS = ("What is the capital of France?", "What is bread made of?", "What circles the earth?", "Name the capital.")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small sets in the hub's columns."""
    root = tmp_path_factory.mktemp("data")
    rows: dict[str, list[dict[str, object]]] = {
        "glue/stsb/validation": [
            {"sentence1": one, "sentence2": other, "label": float(abs(left - right))}
            for left, one in enumerate(QUESTIONS)
            for right, other in enumerate(PARAGRAPHS)
        ],
        "squad_v2/validation_half": [
            {"title": title, "context": f"{text} {number}", "question": "Why?"}
            for title, text in zip(("France", "Bread", "Moon"), PARAGRAPHS, strict=True)
            for number in range(4)
        ],
    }
    for code, end in (("en", ""), ("de", " (de)")):
        rows[f"xquad/{code}.validation"] = [
            {"id": str(number), "question": question + end, "context": PARAGRAPHS[number % 3] + end, "answers": {}}
            for number, question in enumerate(QUESTIONS)
        ]
    for name, found in rows.items():
        file = root / f"{name}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in found))
    return root


def test_ndcg_and_recall_of_hand_worked_rankings() -> None:
    """Relevant documents at ranks 2 and 3 of three: (1/log2(3) + 1/2) / (1 + 1/log2(3))."""
    scores = np.array([[0.9, 0.5, 0.1], [0.3, 0.2, 0.1]])
    relevant = [[1, 2], [0]]
    expected = (1 / np.log2(3) + 0.5) / (1 + 1 / np.log2(3))
    assert ndcg_at_k(scores, relevant) == pytest.approx((expected + 1) / 2)
    assert ndcg_at_k(scores, [[2], [2]], 2) == 0
    assert found_at_k(scores, relevant, 2) == pytest.approx((0.5 + 1) / 2)


def test_ndcg_equals_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    scores, truth = rng.random((6, 30)), rng.random((6, 30)) < 0.2
    truth[:, 0] = True
    relevant = [np.flatnonzero(row).tolist() for row in truth]
    assert ndcg_at_k(scores, relevant) == pytest.approx(ndcg_score(truth, scores, k=10))


def test_average_precision_and_v_measure_of_hand_worked_values() -> None:
    """Positives at ranks 1 and 3: (1 + 2/3) / 2. Perfect clusters have v-measure 1, whatever their names."""
    assert pair_precision(np.array([1, 0, 1, 0]), np.array([0.9, 0.8, 0.7, 0.1])) == pytest.approx(5 / 6)
    vectors = np.array([[1.0, 0], [0.99, 0.1], [0, 1], [0.1, 0.99]])
    assert v_measure(["a", "a", "b", "b"], vectors) == pytest.approx(1)


def test_texts_of_retrieval_and_bitext(data: Path) -> None:
    task, bitext = chosen_tasks(["embeddings/xquad"])[0], chosen_tasks(["embeddings/xquad-bitext"])[0]
    texts, digest = read_texts(task, data, (), None)
    assert set(texts) == {"en", "de"}
    assert len(texts["en"].queries) == 4
    assert len(texts["en"].documents) == 3
    assert texts["en"].truth == [[0], [1], [2], [0]]
    assert digest != read_texts(task, data, (), 2)[1]
    assert len(read_texts(task, data, (), 2)[0]["de"].documents) == 3
    found = read_texts(bitext, data, (), None)[0]
    assert found["de"].truth == [[0], [1], [2], [3]]
    assert found["de"].documents == list(QUESTIONS)
    with pytest.raises(NoDataError, match="none of the languages sw"):
        read_texts(task, data, ("sw",), None)
    with pytest.raises(NoDataError, match="no validation rows"):
        read_texts(chosen_tasks(["embeddings/tydi"])[0], data, (), None)


def test_prompts_of_the_two_sides() -> None:
    prompts = Prompts({"query": "query: ", "passage": "passage: "})
    assert prompted(["a"], prompts, "query") == ["query: a"]
    assert prompted(["a"], prompts, "document") == ["passage: a"]
    assert prompted(["a"], Prompts(), "document") == ["a"]


def test_a_run_with_a_teacher_has_symmetric_and_asymmetric_scores(
    tmp_path: Path, tiny_teacher: Teacher, data: Path
) -> None:
    options = SuiteOptions(data, teacher=str(tiny_teacher.path), dimensions=(32,), quantise_vectors=("int8", "binary"))
    made = run_embeddings(tmp_path, str(tiny_teacher.path), ["embeddings"], options)
    results = {found["task"]: found for found in (json.loads((one.path / RESULT).read_text()) for one in made)}
    names = ("stsb", "xquad", "xquad-bitext", "squad-topics")
    assert set(results) == {f"embeddings/{name}" for name in names}
    rows = results["embeddings/xquad"]["rows"]
    assert [(row["queries"], row["documents"]) for row in rows[::4]] == [
        ("model", "model"),
        ("model", "teacher"),
        ("teacher", "teacher"),
    ]
    kinds = [(row["dimensions"], row["precision"]) for row in rows[:4]]
    assert kinds == [(96, "float32"), (32, "float32"), (96, "int8"), (96, "binary")]
    assert rows[0]["retention"] == pytest.approx(1)
    assert rows[0]["scores"] == rows[4]["scores"] == rows[8]["scores"]
    assert rows[0]["teacher_neighbours_recall_at_10"] == 1
    assert len(results["embeddings/squad-topics"]["rows"]) == 8
    assert run_embeddings(tmp_path, str(tiny_teacher.path), ["embeddings/stsb"], options)[0].path == made[0].path


def test_vectors_equal_those_of_sentence_transformers(tiny_teacher: Teacher, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    found = open_embedder(str(tiny_teacher.path), "pytorch", tmp_path).vectors(QUESTIONS)
    model = SentenceTransformer(str(tiny_teacher.path), device="cpu")
    expected = model.encode(list(QUESTIONS), normalize_embeddings=True)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_tasks_and_engines_that_do_not_fit_are_refused(tmp_path: Path, tiny_teacher: Teacher, data: Path) -> None:
    with pytest.raises(UsageError, match="needs no fine-tuning"):
        suites(str(tiny_teacher.path), ("embeddings", "glue/sst2"), SuiteOptions(data), tmp_path)
    with pytest.raises(UsageError, match="folder of an export"):
        open_embedder(str(tiny_teacher.path), "onnxruntime-int8", tmp_path)
    with pytest.raises(UsageError, match="dimensions is"):
        SuiteOptions(dimensions=(0,))
    with pytest.raises(UsageError, match="int8, binary"):
        SuiteOptions(quantise_vectors=("int4",))  # type: ignore[arg-type]
