"""The linear head in every exported form, prompts, shorter and quantised vectors."""

import json
from pathlib import Path

import numpy as np
import pytest

from kdnas.errors import BoundError, UsageError
from kdnas.export.checkpoint import open_checkpoint
from kdnas.export.head import require_same
from kdnas.export.options import ExportOptions
from kdnas.export.outputs import unit
from kdnas.export.run import run_export
from kdnas.export.session import Session
from kdnas.export.silence import silence_exporters
from kdnas.export.vectors import embed, quantised, similarities, truncated
from kdnas.models.head import Head, Prompts
from kdnas.models.pooling import write_modules
from kdnas.models.teacher import Teacher
from kdnas.store.artifact import Artifact
from kdnas.text.corpus import Corpus

FORMS = ("onnxruntime-f32", "onnxruntime-int8", "openvino-f32", "openvino-int8")


def with_head(teacher: Teacher, folder: Path, pooling: str = "mean") -> Path:
    """A copy of a model with a head from 96 to 40 dimensions, and prompts."""
    for file in teacher.path.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    rng = np.random.default_rng(0)
    head = Head(rng.normal(size=(40, 96)).astype(np.float32), rng.normal(size=40).astype(np.float32))
    prompts = Prompts({"query": "query: ", "passage": "passage: "}, "query")
    write_modules(folder, 96, 128, "first" if pooling == "first" else "mean", head, prompts)
    return folder


@pytest.fixture(scope="module")
def head_folder(tiny_teacher: Teacher, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_head(tiny_teacher, tmp_path_factory.mktemp("with-head"))


@pytest.fixture(scope="module")
def head_export(home: Path, head_folder: Path, corpus: Corpus) -> Artifact:
    options = ExportOptions(calibration_sentences=24, parity_sentences=24, recipes=("static", "dynamic"))
    return run_export(home, head_folder, open_checkpoint(str(head_folder)).digest, corpus, options)


def reference(folder: Path, texts: list[str]) -> np.ndarray:
    from sentence_transformers import SentenceTransformer

    return np.asarray(SentenceTransformer(str(folder), device="cpu").encode(texts))


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_each_form_gives_the_vectors_of_sentence_transformers(
    form: str, head_folder: Path, head_export: Artifact, corpus: Corpus
) -> None:
    texts = corpus.validation.texts[:8]
    expected, session = reference(head_folder, texts), Session(head_export.path, form, threads=1)
    found = session.predict(texts)
    assert found.shape == (8, 40) == (8, session.dimensions)
    if form.endswith("f32"):
        np.testing.assert_allclose(found, expected, atol=1e-4)
    else:
        assert (found * expected).sum(1).min() > 0.98
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    plain = embed(session, [f"query: {text}" for text in texts], dimensions=16)
    assert plain.shape == (8, 16)
    assert head_export.results["forms"][form]["embedding_cosine_mean"] > 0.98


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "onnx", "openvino"])
def test_sentence_transformers_loads_the_export_with_its_head(
    backend: str, head_folder: Path, head_export: Artifact, corpus: Corpus
) -> None:
    from sentence_transformers import SentenceTransformer

    texts = corpus.validation.texts[:8]
    with silence_exporters():
        model = SentenceTransformer(str(head_export.path), backend=backend, device="cpu", local_files_only=True)  # type: ignore[arg-type]
        found = model.encode(texts)
    np.testing.assert_allclose(found, reference(head_folder, texts), atol=5e-3 if backend == "openvino" else 1e-4)


@pytest.mark.slow
def test_the_prompt_is_chosen_by_name(head_export: Artifact) -> None:
    session = Session(head_export.path, "onnxruntime-f32", threads=1)
    default, passage = embed(session, ["an array"]), embed(session, ["an array"], "passage")
    np.testing.assert_allclose(default, embed(session, ["an array"], "query"), atol=1e-6)
    assert np.abs(default - passage).max() > 1e-3
    with pytest.raises(UsageError, match="no prompt 'title'"):
        embed(session, ["an array"], "title")


@pytest.mark.slow
def test_own_vectors_of_a_model_with_a_head(
    tmp_path: Path, tiny_teacher: Teacher, head_folder: Path, corpus: Corpus
) -> None:
    options = ExportOptions(24, 24, forms=("onnxruntime-f32",), head="own")
    own = run_export(tmp_path, head_folder, open_checkpoint(str(head_folder)).digest, corpus, options)
    session = Session(own.path, threads=1)
    assert session.dimensions == 96
    texts = corpus.validation.texts[:4]
    np.testing.assert_allclose(session.predict(texts), reference(own.path, texts), atol=1e-4)
    assert "Dense" not in (own.path / "modules.json").read_text()


@pytest.mark.slow
def test_first_token_and_a_cut_vocabulary(tmp_path: Path, tiny_teacher: Teacher, corpus: Corpus) -> None:
    (tmp_path / "model").mkdir()
    folder = with_head(tiny_teacher, tmp_path / "model", "first")
    forms = ("onnxruntime-f32", "openvino-f32")
    options = ExportOptions(24, 24, forms=forms, vocabulary="corpus")
    made = run_export(tmp_path, folder, open_checkpoint(str(folder)).digest, corpus, options)
    texts = corpus.train.texts[:4]
    for form in forms:
        np.testing.assert_allclose(
            Session(made.path, form, threads=1).predict(texts), reference(folder, texts), atol=1e-4
        )


def test_a_float_form_with_other_vectors_is_refused() -> None:
    require_same("onnxruntime-f32", {"embedding_max_abs_diff": 1e-5}, 1e-4)
    for wrong in (1e-3, float("nan")):
        with pytest.raises(BoundError, match="embeddings differ"):
            require_same("onnxruntime-f32", {"embedding_max_abs_diff": wrong}, 1e-4)


def test_head_option_changes_the_key_only_of_models_with_a_head() -> None:
    with pytest.raises(UsageError, match="teacher and own"):
        ExportOptions(head="student")  # type: ignore[arg-type]


def test_truncated_vectors_have_unit_length() -> None:
    vectors = np.array([[3.0, 4.0, 12.0]]) / 13
    np.testing.assert_allclose(truncated(vectors, 2), [[0.6, 0.8]])
    assert truncated(vectors, None) is vectors
    for wrong in (0, 4):
        with pytest.raises(UsageError, match="allowed are 1 to 3"):
            truncated(vectors, wrong)


def test_quantised_vectors_of_hand_worked_values() -> None:
    vectors = np.array([[0.5, -1.0, 0.25, 0.0, 0.1, -0.1, 0.2, -0.2]], dtype=np.float32)
    assert quantised(vectors, "int8").tolist() == [[64, -127, 32, 0, 13, -13, 25, -25]]
    assert quantised(vectors, "binary").tolist() == [[0b10101010]]
    assert quantised(vectors, "float32") is vectors
    with pytest.raises(UsageError, match="float32, int8, binary"):
        quantised(vectors, "int4")  # type: ignore[arg-type]


def test_similarities_of_quantised_vectors() -> None:
    rng = np.random.default_rng(1)
    queries, documents = (unit(rng.normal(size=(count, 64)).astype(np.float32)) for count in (5, 30))
    exact = queries @ documents.T
    np.testing.assert_allclose(similarities(queries, documents), exact, atol=1e-6)
    int8 = similarities(quantised(queries, "int8"), quantised(documents, "int8"))
    np.testing.assert_allclose(int8, exact, atol=0.02)
    binary = similarities(quantised(queries, "binary"), quantised(documents, "binary"))
    np.testing.assert_allclose(binary, np.sign(queries) @ np.sign(documents).T / 64, atol=1e-6)
    with pytest.raises(UsageError, match="quantise both alike"):
        similarities(queries, quantised(documents, "int8"))


def test_exports_keep_prompts_and_size_in_their_settings(head_folder: Path) -> None:
    checkpoint = open_checkpoint(str(head_folder))
    assert checkpoint.head is not None
    assert checkpoint.prompts.texts["passage"] == "passage: "
    names = [module["type"].rsplit(".", 1)[-1] for module in json.loads((head_folder / "modules.json").read_text())]
    assert names == ["Transformer", "Pooling", "Dense", "Normalize"]
