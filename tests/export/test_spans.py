"""Token classification and question answering from exported models, against PyTorch and transformers' own pipeline."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForQuestionAnswering, AutoModelForTokenClassification, AutoTokenizer

from kdnas.errors import UsageError
from kdnas.export.session import Session
from kdnas.export.spans import Answerer, token_scores
from kdnas.store.artifact import Artifact
from kdnas.text.corpus import Corpus

FORMS = ("openvino-f32", "onnxruntime-f32")


@pytest.mark.parametrize("form", FORMS)
def test_token_scores_equal_pytorch(form: str, token_export: Artifact, token_folder: Path, corpus: Corpus) -> None:
    session = Session(token_export.path, form, threads=1)
    assert session.labels == ["O", "PER", "LOC"]
    texts = [*corpus.validation.texts[:12], "John Smith lived in London.", ""]
    model, tokenizer = (
        AutoModelForTokenClassification.from_pretrained(token_folder),
        AutoTokenizer.from_pretrained(token_folder),
    )
    for text, scores in zip(texts, token_scores(session, texts, batch_tokens=128), strict=True):
        encoded = tokenizer(text, truncation=True, max_length=100, return_tensors="pt", return_offsets_mapping=True)
        offsets = encoded.pop("offset_mapping")[0, 1:-1].numpy()
        with torch.inference_mode():
            expected = model(**encoded).logits[0, 1:-1].softmax(-1).numpy()
        np.testing.assert_array_equal(scores.offsets, offsets)
        np.testing.assert_allclose(scores.probabilities, expected, atol=1e-4)
    words = [texts[-2][start:end] for start, end in token_scores(session, texts[-2:])[0].offsets]
    assert words[0].lower() == "john"


def best_span(folder: Path, question: str, context: str, most: int) -> tuple[int, int, float]:
    """First and last character and score of the best span, from a naive loop over PyTorch's logits."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForQuestionAnswering.from_pretrained(folder)
    encoded = tokenizer(question, context, return_tensors="pt", return_offsets_mapping=True)
    offsets = encoded.pop("offset_mapping")[0].tolist()
    parts = encoded.sequence_ids(0)
    with torch.inference_mode():
        output = model(**encoded)
    found = (0, 0, -np.inf)
    for first, start in enumerate(output.start_logits[0].tolist()):
        for last, end in enumerate(output.end_logits[0].tolist()):
            if parts[first] == parts[last] == 1 and 0 <= last - first < most and start + end > found[2]:
                found = (offsets[first][0], offsets[last][1], start + end)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("most", [30, 2])
def test_answers_equal_pytorch(
    form: str, most: int, question_export: Artifact, question_folder: Path, corpus: Corpus
) -> None:
    answerer = Answerer(Session(question_export.path, form, threads=1))
    for question, context in zip(corpus.train.texts[:6], corpus.validation.texts[:6], strict=True):
        start, end, score = best_span(question_folder, question, context, most)
        answer = answerer.answer(question, context, most)
        assert (answer.start, answer.end, answer.text) == (start, end, context[start:end])
        assert answer.score == pytest.approx(score, abs=1e-3)


def test_the_windows_cover_a_long_context(question_export: Artifact) -> None:
    answerer = Answerer(Session(question_export.path, "openvino-f32", threads=1))
    filler = " ".join(f"Number {number} is a number." for number in range(100))
    scores = [answerer.answer("Who wrote it?", filler[:cut]).score for cut in (100, 900, len(filler))]
    assert max(scores) > -np.inf
    windows = answerer._windows.of("Who wrote it?", filler)
    assert len(windows) > 5
    covered = set()
    for window in windows:
        for (first, end), part in zip(window.offsets, window.sequence_ids, strict=True):
            covered |= set(range(first, end)) if part == 1 else set()
    assert covered >= {index for index, char in enumerate(filler) if not char.isspace()}
    assert all(len(window.ids) <= 100 for window in windows)


def test_batched_answers_equal_single_answers(question_export: Artifact, corpus: Corpus) -> None:
    answerer = Answerer(Session(question_export.path, "openvino-f32", threads=1))
    texts = corpus.validation.texts
    pairs = [("What is it?", text) for text in texts[:20]] + [("Why?", ""), ("Who?", " ".join(texts[:40]))]
    together = answerer.answers(pairs, batch_tokens=512)
    for pair, found in zip(pairs, together, strict=True):
        alone = answerer.answer(*pair)
        assert (found.start, found.end, found.text) == (alone.start, alone.end, alone.text)
        assert found.score == pytest.approx(alone.score, abs=1e-3)
    assert answerer.answers([]) == []


def test_empty_contexts_and_very_long_questions_are_answered(question_export: Artifact) -> None:
    answerer = Answerer(Session(question_export.path, "openvino-f32", threads=1))
    assert answerer.answer("Who?", "").text == ""
    found = answerer.answer("why " * 500, "Because it is so.")
    assert found.text in "Because it is so."
    assert found.text


def test_sessions_of_other_tasks_are_refused(question_export: Artifact, token_export: Artifact) -> None:
    questions, tokens = Session(question_export.path, threads=1), Session(token_export.path, threads=1)
    with pytest.raises(UsageError, match="a model for question-answering; token-classification is needed"):
        token_scores(questions, ["a"])
    with pytest.raises(UsageError, match="a model for token-classification; question-answering is needed"):
        Answerer(tokens)
    with pytest.raises(UsageError, match="text-classification or feature-extraction is needed"):
        tokens.predict(["a"])
