"""Models whose head decides what the service answers: a linear head of an encoder, and independent labels."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from kdnas.export.session import Session
from kdnas.export.thresholds import THRESHOLDS
from kdnas.models.head import Head
from kdnas.models.pooling import write_modules
from kdnas.models.teacher import Teacher
from kdnas.serving.client import Client
from kdnas.text.corpus import Corpus

from ..classifier_fixture import export_tiny
from .conftest import with_task_head
from .serve_fixture import Served, serving

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def mapped(home: Path, tiny_teacher: Teacher, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported encoder with a linear head from 96 to 40 dimensions."""
    folder = tmp_path_factory.mktemp("models") / "mapped"
    folder.mkdir()
    for file in tiny_teacher.path.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    rng = np.random.default_rng(0)
    head = Head(rng.normal(size=(40, 96)).astype(np.float32), rng.normal(size=40).astype(np.float32))
    write_modules(folder, 96, 128, "mean", head)
    return export_tiny(home, folder, tiny_teacher, corpus)


@pytest.fixture(scope="module")
def multi_label(home: Path, tiny_teacher: Teacher, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported classifier of three independent labels."""
    folder = tmp_path_factory.mktemp("models") / "multi-label"
    names = dict(enumerate(["hate", "abuse", "profanity"]))
    settings = {"id2label": names, "problem_type": "multi_label_classification"}
    return with_task_head("BertForSequenceClassification", home, tiny_teacher, corpus, folder, **settings)


def test_embeddings_are_those_of_the_linear_head(mapped: Path, sentences: list[str]) -> None:
    texts = sentences[:3]
    with serving(mapped) as served:
        session = Session(mapped, threads=1)
        expected = session.predict(texts)
        found = np.array(served.client.post("/embed", json={"inputs": texts}).json())
        assert found.shape == (3, 40)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        body = {"input": texts, "dimensions": 16}
        rows = served.client.post("/v1/embeddings", json=body).json()["data"]
        cut = expected[:, :16] / np.linalg.norm(expected[:, :16], axis=1, keepdims=True)
        np.testing.assert_allclose([row["embedding"] for row in rows], cut, atol=1e-5)
        assert served.client.post("/v1/embeddings", json={"input": "a", "dimensions": 41}).status_code in (400, 422)
        assert served.client.get("/info").json()["models"][0]["dimensions"] == 40


def test_independent_labels_have_sigmoid_scores(multi_label: Path, sentences: list[str]) -> None:
    with serving(multi_label) as served:
        expected = Session(multi_label, threads=1).predict(sentences[:2])
        rows = served.post(texts=sentences[:2]).json()["predictions"]
        np.testing.assert_allclose([list(row["scores"].values()) for row in rows], expected, atol=1e-5)
        assert abs(expected.sum(axis=1) - 1).min() > 1e-3
        for row in rows:
            assert row["labels"] == [name for name, score in row["scores"].items() if score >= 0.5]


def test_labels_and_detections_follow_the_thresholds_of_the_model(
    multi_label: Path, sentences: list[str], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(multi_label, tmp_path / "hap"))
    scores = Session(folder, threads=1).predict(sentences[:30])
    low, high = (float(np.quantile(scores[:, 0], part)) for part in (0.25, 0.75))
    hate = {"threshold": low, "languages": {"de": {"threshold": high}}}
    labels = {"hate": hate, "abuse": {"threshold": None}, "profanity": {"threshold": 0.0}}
    (folder / THRESHOLDS).write_text(json.dumps({"schema": 1, "wanted": {"precision": 0.9}, "labels": labels}))
    texts = sentences[:30]

    def expected(limit: float) -> list[list[str]]:
        return [["hate", "profanity"] if row[0] >= limit else ["profanity"] for row in scores]

    def detected(served: Served, **params: object) -> list[list[str]]:
        body = {"contents": texts, "detector_params": params}
        found = served.client.post("/api/v1/text/contents", json=body, headers={"detector-id": "hap"}).json()
        return [[span["detection"] for span in spans] for spans in found]

    assert expected(low) != expected(high)
    with serving(folder) as served:
        assert served.client.get("/info").json()["models"][0]["thresholds"] == {
            "hate": low, "abuse": None, "profanity": 0.0,
        }  # fmt: skip
        client = Client(served.url)
        for language, limit in ((None, low), ("de-AT", high), ("fr", low)):
            given = {} if language is None else {"language": language}
            rows = served.client.post("/v1/classify", json={"texts": texts, **given}).json()["predictions"]
            assert [row["labels"] for row in rows] == expected(limit)
            assert [list(one.labels) for one in client.classify(texts, language=language)] == expected(limit)
            assert detected(served, **given) == expected(limit)
        assert detected(served, threshold=1.0) == [[]] * 30
    with serving(folder, "--threshold", high) as served:
        rows = served.client.post("/v1/classify", json={"texts": texts, "language": "de"}).json()["predictions"]
        names = ("hate", "abuse", "profanity")
        wanted = [[name for name, score in zip(names, row, strict=True) if score >= high] for row in scores]
        assert [row["labels"] for row in rows] == wanted == detected(served)
