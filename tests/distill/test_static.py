"""The static student: its closed form against a loop, its files in sentence-transformers, and its use in the suites."""

from pathlib import Path

import numpy as np
import pytest
import torch

from kdnas.distill.projection import RIDGE
from kdnas.distill.static import frequency_weights
from kdnas.distill.static_options import StaticOptions
from kdnas.distill.static_run import run_static
from kdnas.errors import UsageError
from kdnas.evaluation.embedder import open_embedder
from kdnas.models.folder import model_digest
from kdnas.models.static import is_static, read_static
from kdnas.models.teacher import Teacher, load_encoder
from kdnas.store.artifact import Artifact
from kdnas.text.corpus import Corpus

TEXTS = ["How do I sort an array?", "A short one.", "", "The quick brown fox jumps over the lazy dog, twice."]


@pytest.fixture(scope="module")
def made(home: Path, tiny_teacher: Teacher, corpus: Corpus) -> Artifact:
    return run_static(home / "static", tiny_teacher, corpus, StaticOptions(sentences=400))


def test_sentence_transformers_gives_the_same_vectors(made: Artifact, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    assert is_static(made.path / "student")
    for model in (made.path, made.path / "student"):
        found = open_embedder(str(model), "pytorch", tmp_path).vectors(TEXTS)
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), [1, 1, 0, 1], atol=1e-6)
    expected = SentenceTransformer(str(made.path / "student"), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.slow
def test_the_table_is_the_ridge_regression_of_weighted_means(
    made: Artifact, tiny_teacher: Teacher, corpus: Corpus
) -> None:
    """In numpy, sentence by sentence: means of weighted word embeddings, regressed on the teacher's vectors."""
    chosen = np.random.default_rng(0).permutation(len(corpus.train))[:400]
    words = load_encoder(tiny_teacher.path).get_input_embeddings().weight.detach().double().numpy()
    counts = np.bincount(np.asarray(corpus.train.tokens), minlength=len(words))
    words = words * (1e-3 / (1e-3 + counts / counts.sum()))[:, None]
    teacher, inputs, wanted = load_encoder(tiny_teacher.path), [], []
    for number in chosen:
        ids = corpus.train[int(number)].astype(np.int64)
        inputs.append(np.append(words[ids[1:-1]].mean(0), 1.0))
        with torch.no_grad():
            mean = teacher(input_ids=torch.from_numpy(ids)[None]).last_hidden_state[0].mean(0)
        wanted.append((mean / mean.norm()).double().numpy())
    rows, targets = np.stack(inputs), np.stack(wanted)
    gram = rows.T @ rows
    penalty = RIDGE * np.diag(gram)[:-1].mean() * np.diag([1.0] * 96 + [0.0])
    head = np.linalg.solve(gram + penalty, rows.T @ targets)
    expected = np.hstack([words, np.ones((len(words), 1))]) @ head
    np.testing.assert_allclose(read_static(made.path / "student").table, expected, atol=1e-3)


def test_frequent_tokens_weigh_less(corpus: Corpus, tiny_teacher: Teacher) -> None:
    weights = frequency_weights(corpus.train, tiny_teacher.config["vocab_size"]).numpy()
    counts = np.bincount(np.asarray(corpus.train.tokens), minlength=len(weights))
    assert weights[counts == 0].min() == 1
    most = int(counts.argmax())
    assert weights[most] == weights.min() == pytest.approx(1e-3 / (1e-3 + counts[most] / counts.sum()), rel=1e-5)


def test_results_are_those_of_the_written_model(
    made: Artifact, tiny_teacher: Teacher, corpus: Corpus, tmp_path: Path
) -> None:
    made.verify()
    texts = list(corpus.validation.texts)[:300]
    ours, theirs = (
        open_embedder(str(one), "pytorch", tmp_path).vectors(texts) for one in (made.path, tiny_teacher.path)
    )
    assert made.results["cosine"] == pytest.approx(float((ours * theirs).sum(1).mean()), abs=0.02)
    assert 0 < made.results["p50_ms"] < 100
    assert made.results["megabytes"] == pytest.approx(tiny_teacher.config["vocab_size"] * 96 * 4 / 1e6)
    assert f"{made.results['cosine']:.3f}" in (made.path / "student" / "README.md").read_text()


def test_options_and_engines_that_do_not_fit_are_refused(
    made: Artifact, home: Path, tiny_teacher: Teacher, corpus: Corpus, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="at least 100"):
        StaticOptions(sentences=5)
    with pytest.raises(UsageError, match="is static and has no layers to run"):
        open_embedder(str(made.path), "onnxruntime-f32", tmp_path)
    plain = run_static(home / "static", tiny_teacher, corpus, StaticOptions(400, inverse_frequency=False))
    assert plain.path != made.path
    assert model_digest(plain.path / "student") != model_digest(made.path / "student")
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "modules.json").write_text("{")
    with pytest.raises(UsageError, match="cannot be read"):
        is_static(damaged)
