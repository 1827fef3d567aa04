"""Explained variance and embeddings, against numpy and against known properties."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from kdnas.evaluation.explained_variance import LinearFit, VarianceMeter
from kdnas.evaluation.geometry import choose, geometry, pool, views
from kdnas.models.teacher import Teacher, load_encoder
from kdnas.text.corpus import Corpus, build_corpus
from kdnas.text.readers import TextOptions


def test_the_linear_fit_equals_numpy_lstsq() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 6)) + 3
    y = x @ rng.normal(size=(6, 4)) + 5 + rng.normal(size=(500, 4))
    expected, *_ = np.linalg.lstsq(np.hstack([x, np.ones((500, 1))]), y, rcond=None)
    fit = LinearFit(6, 4)
    for start in range(0, 500, 130):  # uneven batches
        fit.add(torch.from_numpy(x[start : start + 130]), torch.from_numpy(y[start : start + 130]))
    weight, intercept = fit.solve(ridge=0)
    assert np.allclose(weight, expected[:6], atol=1e-9)
    assert np.allclose(intercept, expected[6], atol=1e-9)


def test_explained_variance_equals_the_definition() -> None:
    rng = np.random.default_rng(1)
    truth, error = rng.normal(size=(300, 6)) * [1, 2, 3, 1, 1, 1] + 4, rng.normal(size=(300, 6)) * 0.5
    meter = VarianceMeter(6)
    for part in (slice(0, 100), slice(100, 300)):
        meter.add(torch.from_numpy(truth[part]), torch.from_numpy((truth + error)[part]))
    expected = [
        1 - (error[:, block] ** 2).mean() / truth[:, block].var(0).mean() for block in (slice(0, 3), slice(3, 6))
    ]
    assert meter.explained(2) == pytest.approx(expected)


@pytest.mark.slow
def test_a_model_explains_itself(tiny_teacher: Teacher, corpus: Corpus) -> None:
    found = geometry(tiny_teacher.path, tiny_teacher.path, corpus, 300, 200, seed=0)
    assert found["explained_variance"] == pytest.approx(1, abs=1e-6)
    assert found["recall_at_10"] == 1.0
    assert found["sentences"] == 200
    assert list(found["explained_variance_layers"]) == ["1", "2", "3", "4"]
    assert found["explained_variance_layers"]["4"] == found["explained_variance"]
    assert found["explained_variance_layers"]["1"] < found["explained_variance"] - 1e-5


def test_a_different_model_explains_less(tiny_teacher: Teacher, corpus: Corpus, tmp_path: Path) -> None:
    torch.manual_seed(1)
    shape = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 32, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=tiny_teacher.config["vocab_size"], **shape)).save_pretrained(tmp_path)
    found = geometry(tiny_teacher.path, tmp_path, corpus, 300, 200, seed=0)
    assert found["explained_variance"] < 0.9
    assert found["recall_at_10"] < 0.9


@pytest.mark.slow
def test_shuffled_tokens_explain_nothing(tiny_teacher: Teacher, corpus: Corpus) -> None:
    model = load_encoder(tiny_teacher.path)
    rng = np.random.default_rng(0)

    def shuffled(split: str, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        sentences = getattr(corpus, split)
        batches = list(views(model, model, sentences, choose(sentences, count, 0), corpus.pad_id, 2048))
        student = torch.cat([view.student for view in batches])
        return student[rng.permutation(len(student))], torch.cat([view.teacher[:, -96:] for view in batches])

    fit, meter = LinearFit(96, 96), VarianceMeter(96)
    fit.add(*shuffled("train", 600))
    weight, intercept = fit.solve()
    student, teacher = shuffled("validation", 200)
    meter.add(teacher, student.double() @ weight + intercept)
    assert meter.explained(1)[0] == pytest.approx(0, abs=0.05)


def test_padding_is_ignored(tiny_teacher: Teacher, corpus: Corpus) -> None:
    """A sentence alone, without padding, has the same embedding as in a padded batch."""
    model = load_encoder(tiny_teacher.path)
    chosen = choose(corpus.validation, 30, 0)
    (view,) = list(views(model, model, corpus.validation, chosen, corpus.pad_id, 100_000))
    assert len(view.student) == corpus.validation.lengths[chosen].sum()
    for row, index in enumerate(view.indices[:5]):
        ids = torch.from_numpy(corpus.validation[chosen[index]].astype(np.int64))[None]
        with torch.inference_mode():
            alone = model(input_ids=ids).last_hidden_state[0].mean(0)
        assert torch.allclose(view.student_pooled[row], alone / alone.norm(), atol=1e-5)


def test_pool_equals_the_hand_computed_mean() -> None:
    states = torch.tensor([[[3.0, 0.0], [0.0, 4.0], [100.0, 100.0]]])
    assert torch.allclose(pool(states, torch.tensor([[1, 1, 0]])), torch.tensor([[0.6, 0.8]]))


def test_the_choice_of_sentences_is_seeded_and_without_repeats(corpus: Corpus) -> None:
    first = choose(corpus.train, 100, 3)
    assert np.array_equal(first, choose(corpus.train, 100, 3))
    assert not np.array_equal(first, choose(corpus.train, 100, 4))
    assert len(set(first)) == 100
    assert len(choose(corpus.train, 10**9, 0)) == len(corpus.train)


@pytest.fixture(scope="module")
def two_languages(
    home: Path, corpus_file: Path, tiny_teacher: Teacher, tmp_path_factory: pytest.TempPathFactory
) -> Corpus:
    """The small corpus; each tenth text is marked as Swahili, one as Thai, and the others as English."""
    file = tmp_path_factory.mktemp("languages") / "marked.jsonl"
    with file.open("w") as out:
        for number, line in enumerate(corpus_file.read_text().splitlines()):
            language = "th" if number == 0 else "en" if number % 10 else "sw"
            out.write(json.dumps(json.loads(line) | {"lang": language}) + "\n")
    return build_corpus(home, str(file), TextOptions(seq_len=64, validation_fraction=0.2), tiny_teacher)


def test_rare_languages_get_more_than_their_fraction(two_languages: Corpus) -> None:
    split = two_languages.train
    chosen = choose(split, 200, 0)
    counts = Counter(split.languages_at(chosen))
    assert len(set(chosen)) == 200
    fraction = split.language_counts["sw"] / split.language_counts["en"]
    assert counts["sw"] / counts["en"] == pytest.approx(fraction**0.3, rel=0.05)
    assert Counter(split.languages_at(choose(split, 10**9, 0))) == split.language_counts


@pytest.mark.slow
def test_scores_by_language_are_those_of_their_sentences(
    tiny_teacher: Teacher, two_languages: Corpus, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    shape = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 32, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=tiny_teacher.config["vocab_size"], **shape)).save_pretrained(tmp_path)
    found = geometry(tiny_teacher.path, tmp_path, two_languages, 300, 200, seed=0)
    rows = found["languages"]
    assert sorted(rows) == ["en", "sw"]  # Thai has one sentence
    assert sum(row["sentences"] for row in rows.values()) in (199, 200)
    weighted = sum(row["recall_at_10"] * row["sentences"] for row in rows.values()) / 200
    assert weighted == pytest.approx(found["recall_at_10"], abs=0.005)
    variances = sorted(row["explained_variance"] for row in rows.values())
    assert variances[0] - 0.05 < found["explained_variance"] < variances[1] + 0.05
    assert variances[0] != variances[1]
    itself = geometry(tiny_teacher.path, tiny_teacher.path, two_languages, 300, 200, seed=0)
    assert all(row["recall_at_10"] == 1 for row in itself["languages"].values())


def test_a_corpus_of_one_language_has_no_scores_by_language(tiny_teacher: Teacher, corpus: Corpus) -> None:
    assert geometry(tiny_teacher.path, tiny_teacher.path, corpus, 100, 100, seed=0)["languages"] == {}
