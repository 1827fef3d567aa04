"""Scores on labelled inputs: against hand-computed values, and against transformers on real models."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForTokenClassification, AutoTokenizer

from kdnas.export.checkpoint import load_model, open_checkpoint
from kdnas.export.folder import read_tokenizer
from kdnas.export.judge import Candidate
from kdnas.export.labelled import Labelled
from kdnas.export.parity import torch_forward
from kdnas.export.scores import _score, entity_scores, scores
from kdnas.export.session import Session
from kdnas.export.spans import Answerer, text_logits, word_labels
from kdnas.store.artifact import Artifact
from kdnas.text.corpus import Corpus

TOKENS, QUESTIONS = "token-classification", "question-answering"


def test_only_whole_entities_count() -> None:
    names = ["O", "B-PER", "I-PER", "B-LOC"]
    truth = [[1, 2, 0, 3], [0, 0]]
    # One of two entities is found whole, the other only in part: precision and recall are one half.
    assert _score(TOKENS, truth, [[1, 0, 0, 3], [0, 0]], names) == pytest.approx(0.5)
    assert _score(TOKENS, truth, truth, names) == 1
    assert _score(TOKENS, truth, [[0] * 4, [0] * 2], names) == 0
    # A word without tokens is not an entity.
    assert _score(TOKENS, truth, [[1, 2, None, 3], [0, 0]], names) == 1


def test_entities_that_are_cut_off_are_missed() -> None:
    names = ["O", "B-PER", "I-PER", "B-LOC"]
    found = entity_scores([[1, 2, 0, 3], [0, 3]], [[1, 2, 0], [0]], names)
    assert found["entity_precision"] == 1
    assert found["entity_recall"] == pytest.approx(1 / 3)
    assert found["entity_f1"] == pytest.approx(0.5)
    # An entity of which only a part is cut off is not found either; a cut `O` costs nothing.
    assert entity_scores([[1, 2, 0]], [[1]], names)["entity_f1"] == 0
    assert entity_scores([[1, 2, 0]], [[1, 2]], names)["entity_f1"] == 1
    assert entity_scores([[1, 2], [3]], [[], [3]], names)["entity_recall"] == 0.5


def test_classes_without_a_prefix_are_entities_too() -> None:
    names = ["O", "PER", "LOC"]
    assert _score(TOKENS, [[1, 1, 0, 2]], [[1, 1, 0, 2]], names) == 1
    assert _score(TOKENS, [[1, 1, 0, 2]], [[1, 0, 0, 2]], names) == pytest.approx(0.5)


def test_answers_are_compared_with_the_best_correct_answer() -> None:
    # "the" and full stops do not count, as in SQuAD: 1; then 2 shared words of 2 and 4: precision 1, recall 1/2, F1 2/3.
    right = [["in Rome", "Rome."], ["one two three four"]]
    assert _score(QUESTIONS, right, ["The Rome", "two three"], []) == pytest.approx((1 + 2 / 3) / 2)
    assert _score(QUESTIONS, right, ["", "five"], []) == 0


def test_a_word_has_the_label_of_its_first_token(token_export: Artifact, token_folder: Path, corpus: Corpus) -> None:
    session = Session(token_export.path, "openvino-f32", threads=1)
    texts = [text.split() for text in corpus.validation.texts[:20]] + [["\x07", "Ada"], [], ["word"] * 300]
    model = AutoModelForTokenClassification.from_pretrained(token_folder)
    tokenizer = AutoTokenizer.from_pretrained(token_folder)
    found = word_labels(session, texts, batch_tokens=256)
    for words, labels in zip(texts, found, strict=True):
        encoded = tokenizer(words, is_split_into_words=True, truncation=True, max_length=100, return_tensors="pt")
        with torch.inference_mode():
            best = model(**encoded).logits[0].argmax(-1).tolist()
        expected: dict[int, int] = {}
        for word, label in zip(encoded.word_ids(), best, strict=True):
            if word is not None:
                expected.setdefault(word, label)
        assert {word: label for word, label in enumerate(labels) if label is not None} == expected
    assert found[-3][0] is None
    assert len(found[-3]) == 2
    assert found[-2] == []
    assert len(found[-1]) == 98


def candidate(folder: Path) -> Candidate:
    """The PyTorch model with the interface of a session."""
    checkpoint = open_checkpoint(str(folder))
    tokenizer = read_tokenizer(folder / "tokenizer.json", checkpoint.max_seq_len)
    engine = torch_forward(load_model(checkpoint), checkpoint.task)
    return Candidate(engine, checkpoint.task, tokenizer, checkpoint.pad_id, checkpoint.max_seq_len)


@pytest.mark.slow
def test_pytorch_scores_100_on_its_own_answers(
    token_folder: Path, question_folder: Path, classifier_folder: Path, corpus: Corpus
) -> None:
    texts = corpus.validation.texts[:30]
    languages = ["a", "b"] * 15
    tokens, questions, classifier = map(candidate, (token_folder, question_folder, classifier_folder))
    words = [text.split() for text in texts]
    labelled = Labelled(words, word_labels(tokens, words), languages)
    assert scores(TOKENS, tokens, ["O", "PER", "LOC"], labelled) == {"a": 100, "b": 100}
    asked = [("What is it?", text) for text in texts]
    answers = [[Answerer(questions).answer(*pair).text] for pair in asked]
    assert scores(QUESTIONS, questions, [], Labelled(asked, answers, languages)) == {"a": 100, "b": 100}
    classes = text_logits(classifier, texts).argmax(-1).tolist()
    labelled = Labelled(texts, classes, languages)
    assert scores("text-classification", classifier, ["0", "1", "2"], labelled) == {"a": 100, "b": 100}
    other = Labelled(texts, [(label + 1) % 3 for label in classes], languages)
    assert max(scores("text-classification", classifier, ["0", "1", "2"], other).values()) == 0


def test_pytorch_answers_use_token_types_like_the_export(
    question_export: Artifact, question_folder: Path, corpus: Corpus
) -> None:
    ours, theirs = Answerer(Session(question_export.path, "openvino-f32")), Answerer(candidate(question_folder))
    for text in corpus.validation.texts[:10]:
        one, other = ours.answer("What is this?", text), theirs.answer("What is this?", text)
        assert one.text == other.text
        assert one.score == pytest.approx(other.score, abs=1e-3)
