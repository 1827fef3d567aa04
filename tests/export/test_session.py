"""The session: outputs equal those of PyTorch for all batches, orders and threads; imports without torch."""

import json
import random
import shutil
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdnas.errors import UsageError
from kdnas.export.folder import FORMS, read_settings
from kdnas.export.session import Session, token_budget_batches
from kdnas.export.texts import TooLongError
from kdnas.models.teacher import Teacher, load_encoder, load_tokenizer
from kdnas.store.artifact import Artifact
from kdnas.text.corpus import Corpus
from kdnas.text.padding import pad

FLOATS = [form for form in FORMS if form.endswith("f32")]


@pytest.fixture(scope="module")
def texts(corpus: Corpus) -> list[str]:
    """Real sentences, an empty text, other scripts and a text that is too long."""
    return [*corpus.validation.texts[:30], "", "😀 Ωμέγα 汉字", "word " * 700]


@pytest.fixture(scope="module")
def session(encoder_export: Artifact) -> Session:
    return Session(encoder_export.path, "openvino-f32", threads=1)


def torch_embeddings(folder: Path, texts: list[str]) -> np.ndarray:
    """Mean over real tokens, unit length; by transformers' own tokenizer, one text at a time."""
    model, tokenizer = load_encoder(folder), load_tokenizer(folder)
    result = []
    for text in texts:
        inputs = tokenizer(text, truncation=True, max_length=512, return_tensors="pt")
        mean = model(**inputs).last_hidden_state[0].mean(0)
        result.append((mean / mean.norm()).numpy())
    return np.stack(result)


@pytest.mark.slow
@pytest.mark.parametrize("form", FLOATS)
def test_embeddings_equal_pytorch(form: str, encoder_export: Artifact, tiny_teacher: Teacher, texts: list[str]) -> None:
    got = Session(encoder_export.path, form, threads=1).predict(texts)
    assert got.shape == (len(texts), 96)
    np.testing.assert_allclose(got, torch_embeddings(tiny_teacher.path, texts), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("form", FLOATS)
def test_probabilities_equal_pytorch(
    form: str, classifier_export: Artifact, classifier_folder: Path, texts: list[str]
) -> None:
    from transformers import AutoModelForSequenceClassification

    model, tokenizer = (
        AutoModelForSequenceClassification.from_pretrained(classifier_folder),
        load_tokenizer(classifier_folder),
    )
    expected = []
    for text in texts:
        inputs = tokenizer(text, truncation=True, max_length=100, return_tensors="pt")
        with torch.inference_mode():
            expected.append(model(**inputs).logits.softmax(-1)[0].numpy())
    session = Session(classifier_export.path, form, threads=1)
    assert session.task == "text-classification"
    assert session.labels == ["clean", "rude", "hateful"]
    got = session.predict(texts)
    np.testing.assert_allclose(got, np.stack(expected), atol=1e-5)
    np.testing.assert_allclose(got.sum(1), 1, atol=1e-6)
    assert len(set(np.stack(expected).argmax(1))) > 1, (
        "the classifier predicts one label for all texts, so this test shows nothing"
    )


@pytest.mark.slow
def test_outputs_do_not_depend_on_batches_or_order(session: Session, texts: list[str]) -> None:
    alone = np.concatenate([session.predict([text]) for text in texts])
    rng = random.Random(0)
    for budget in (1, 64, 300, 4096):
        order = rng.sample(range(len(texts)), len(texts))
        together = session.predict([texts[index] for index in order], batch_tokens=budget)
        np.testing.assert_allclose(together, alone[order], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_concurrent_callers_get_the_right_outputs(form: str, encoder_export: Artifact, texts: list[str]) -> None:
    session = Session(encoder_export.path, form, threads=1)
    expected = [session.predict([text]) for text in texts]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda text: session.predict([text]), texts * 4))
    for number, answer in enumerate(answers):
        np.testing.assert_allclose(answer, expected[number % len(texts)], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("form", FLOATS)
def test_parallel_streams_give_the_same_outputs(
    form: str, classifier_export: Artifact, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Session(classifier_export.path, form, threads=2)
    two = Session(classifier_export.path, form, threads=2, streams=2)
    np.testing.assert_allclose(two.predict(texts, 64), one.predict(texts, 64), atol=1e-5)
    assert Session(classifier_export.path, form, threads=1, streams=2).streams == 1
    with pytest.raises(UsageError, match="streams is 0"):
        Session(classifier_export.path, form, streams=0)

    def broken(*_: object) -> np.ndarray:
        raise RuntimeError("the engine died")

    monkeypatch.setattr(two, "run", broken)
    with pytest.raises(RuntimeError, match="the engine died"):
        two.predict(texts, 64)


def test_batches_are_padded_less_than_single_texts(encoder_export: Artifact) -> None:
    session = Session(encoder_export.path, "openvino-f32", threads=1)
    assert session.pad([[1] * 9])[0].shape == (1, 16)
    assert session.pad([[1] * 9, [2]])[0].shape == (2, 12)
    assert Session(encoder_export.path, "onnxruntime-f32", threads=1).pad([[1] * 9, [2]])[0].shape == (2, 9)


def test_results_survive_later_calls(session: Session) -> None:
    ids = np.array([[101, 2054, 102]])
    first = session.run(ids, np.ones_like(ids))
    kept = first.copy()
    session.run(ids[:, ::-1].copy(), np.ones_like(ids))
    np.testing.assert_array_equal(first, kept)


def test_the_fastest_form_is_the_default_and_an_empty_list_gives_no_rows(encoder_export: Artifact) -> None:
    session = Session(encoder_export.path)
    assert session.form == read_settings(encoder_export.path)["forms"][0]
    assert session.predict([]).shape == (0, 96)
    session.warm((8, 500, 10_000), batch=2)


def test_padding_never_exceeds_the_maximum_length(classifier_export: Artifact) -> None:
    session = Session(classifier_export.path, "openvino-f32", threads=1)
    assert session.max_seq_len == 100  # not a multiple of 8
    rows = session.encode(["word " * 300, "two"])
    assert [len(row) for row in rows] == [100, 3]
    assert pad(rows, 0, 100)[0].shape == (2, 100)
    assert np.isfinite(session.predict(["word " * 300])).all()


def test_bare_strings_and_items_of_other_types_are_refused(session: Session) -> None:
    with pytest.raises(UsageError, match=r"one string \('hello'\); give a list"):
        session.predict("hello")
    with pytest.raises(UsageError, match=r"one string"):
        session.encode("hello")
    with pytest.raises(UsageError, match=r"texts\[1\] is of type int"):
        session.predict(["one", 2])  # type: ignore[list-item]
    with pytest.raises(UsageError, match=r"texts\[2\] is of type str; give .* pairs"):
        session.predict([("one", "two"), ("three", "four"), "five"])  # type: ignore[list-item]


def test_too_long_texts_are_cut_or_refused_by_the_policy(encoder_export: Artifact) -> None:
    long = "word " * 700
    session = Session(str(encoder_export.path), "openvino-f32", threads=1)
    with pytest.warns(UserWarning, match="2 of 3 texts have more than 512 tokens"):
        session.predict([long, "short", long])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        session.predict([long])  # one warning per session
    strict = Session(encoder_export.path, "openvino-f32", threads=1, too_long="error")
    with pytest.raises(TooLongError, match=r"text 1 has 702 tokens; .* 512"):
        strict.predict(["short", long])
    with pytest.raises(TooLongError, match="text 0 has more than 512 tokens"):
        strict.predict([(long, "short")])
    with pytest.raises(TooLongError, match="text 0 has 702"):
        session.encode([long], "error")
    assert [len(session.encode([long], policy)[0]) for policy in ("truncate", "whole")] == [512, 702]
    for policy in ("cut", "whole"):
        with pytest.raises(UsageError, match=r"too_long is .*; allowed are 'truncate', 'error'"):
            Session(encoder_export.path, too_long=policy)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("form", FLOATS)
def test_pairs_are_joined_as_in_transformers(
    form: str, classifier_export: Artifact, classifier_folder: Path, texts: list[str]
) -> None:
    from transformers import AutoModelForSequenceClassification

    model, tokenizer = (
        AutoModelForSequenceClassification.from_pretrained(classifier_folder),
        load_tokenizer(classifier_folder),
    )
    pairs = [*zip(texts[:10], texts[10:20], strict=True), ("word " * 80, texts[0]), ("", texts[1])]
    expected = []
    for one, other in pairs:
        inputs = tokenizer(one, other, truncation=True, max_length=100, return_tensors="pt")
        with torch.inference_mode():
            expected.append(model(**inputs).logits.softmax(-1)[0].numpy())
    got = Session(classifier_export.path, form, threads=1).predict(pairs)
    np.testing.assert_allclose(got, np.stack(expected), atol=1e-5)
    single = Session(classifier_export.path, form, threads=1).predict([f"{one} {other}" for one, other in pairs])
    assert np.abs(got - single).max() > 1e-4  # separators and token types matter


def test_pairs_work_for_a_model_without_token_types(
    roberta_export: Artifact, roberta_folder: Path, texts: list[str]
) -> None:
    pairs = [("Open a file.", "Close it."), (texts[0], texts[1])]
    model, tokenizer = load_encoder(roberta_folder), load_tokenizer(roberta_folder)
    expected = []
    for one, other in pairs:
        inputs = tokenizer(one, other, truncation=True, max_length=90, return_tensors="pt")
        first = model(**inputs).last_hidden_state[0, 0]  # this model pools its first token
        expected.append((first / first.norm()).numpy())
    got = Session(roberta_export.path, "onnxruntime-f32", threads=1).predict(pairs)
    np.testing.assert_allclose(got, np.stack(expected), atol=1e-5)


def test_a_graph_without_token_types_runs_without_them(roberta_export: Artifact, texts: list[str]) -> None:
    for form in FLOATS:
        session = Session(roberta_export.path, form, threads=1)
        assert (session.pad_id, session.max_seq_len) == (1, 90)
        alone = np.concatenate([session.predict([text]) for text in texts])
        np.testing.assert_allclose(session.predict(texts), alone, atol=1e-5)


@pytest.mark.slow
def test_a_session_imports_neither_torch_nor_transformers(encoder_export: Artifact) -> None:
    program = (
        "import sys, json; from pathlib import Path; from kdnas.export.session import Session\n"
        "for form in sys.argv[2:]: Session(Path(sys.argv[1]), form, threads=1).predict(['Open a file.'])\n"
        "print(json.dumps([name for name in ('torch', 'transformers', 'optimum', 'nncf') if name in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, encoder_export.path, *FORMS], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == []


def test_other_folders_and_unknown_forms_are_refused(tmp_path: Path, encoder_export: Artifact) -> None:
    with pytest.raises(UsageError, match=r"not an exported model.*kdnas export"):
        Session(tmp_path)
    with pytest.raises(
        UsageError,
        match=r"no form 'tensorrt'; it has (openvino|onnxruntime)-(int8|f32), ",
    ):
        Session(encoder_export.path, "tensorrt")
    with pytest.raises(UsageError, match="threads is 0"):
        Session(encoder_export.path, threads=0)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"task": "x"}', "null"])
def test_damaged_settings_are_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "kdnas.json").write_text(content)
    with pytest.raises(UsageError, match=r"kdnas\.json"):
        Session(tmp_path)


@pytest.mark.parametrize("form", FORMS)
def test_a_damaged_graph_or_tokenizer_is_refused(form: str, encoder_export: Artifact, tmp_path: Path) -> None:
    folder = shutil.copytree(encoder_export.path, tmp_path / "copy")
    (folder / FORMS[form]).write_bytes((folder / FORMS[form]).read_bytes()[:1000])
    with pytest.raises(UsageError, match="cannot be loaded"):
        Session(folder, form, verify=False)
    (folder / FORMS[form]).unlink()
    with pytest.raises(UsageError, match="missing"):
        Session(folder, form, verify=False)
    (folder / read_settings(folder)["encoder"]).write_text("{")
    with pytest.raises(UsageError, match=r"tokenizer\.tkz: cannot be read"):
        Session(folder, form, verify=False)


@given(st.lists(st.integers(1, 512), max_size=60), st.integers(1, 4096))
def test_batches_contain_every_row_once_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = list(token_budget_batches(lengths, budget))
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        width = -(-max(lengths[index] for index in batch) // 8) * 8
        assert len(batch) == 1 or width * len(batch) <= budget


@given(st.lists(st.lists(st.integers(5, 99), min_size=1, max_size=30), min_size=1, max_size=5))
def test_pad_keeps_rows_and_masks_the_rest(rows: list[list[int]]) -> None:
    ids, mask = pad(rows, 1, 512)
    assert ids.shape == mask.shape
    assert ids.shape[1] % 8 == 0
    for row, padded, real in zip(rows, ids, mask, strict=True):
        assert padded[: len(row)].tolist() == row
        assert (padded[len(row) :] == 1).all()
        assert real.tolist() == [1] * len(row) + [0] * (len(padded) - len(row))
