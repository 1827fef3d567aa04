"""Other libraries load an export, and their outputs equal those of its session."""

from typing import Any

import numpy as np
import pytest
import torch
from optimum.intel import OVModelForFeatureExtraction, OVModelForSequenceClassification
from optimum.onnxruntime import ORTModelForFeatureExtraction, ORTModelForSequenceClassification
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer, pipeline

from kdnas.export.outputs import softmax
from kdnas.export.session import Session
from kdnas.export.silence import silence_exporters
from kdnas.store.artifact import Artifact
from kdnas.text.corpus import Corpus


@pytest.mark.parametrize("kind", ["encoder_export", "roberta_export"])
@pytest.mark.parametrize("backend", ["torch", "onnx", "openvino"])
def test_sentence_transformers_gives_the_same_embeddings(
    backend: Any, kind: str, request: pytest.FixtureRequest, corpus: Corpus
) -> None:
    from sentence_transformers import SentenceTransformer

    artifact: Artifact = request.getfixturevalue(kind)
    texts = corpus.validation.texts[:12]
    with silence_exporters():
        theirs = SentenceTransformer(str(artifact.path), backend=backend, device="cpu", local_files_only=True).encode(
            texts
        )
    ours = Session(artifact.path, "onnxruntime-f32" if backend == "onnx" else "openvino-f32", threads=1).predict(texts)
    # By default OpenVINO computes in bf16 if the CPU supports it.
    np.testing.assert_allclose(theirs, ours, atol=5e-3 if backend == "openvino" else 1e-5)


@pytest.mark.slow
def test_sentence_transformers_loads_the_int8_form(encoder_export: Artifact, corpus: Corpus) -> None:
    from sentence_transformers import SentenceTransformer

    texts = corpus.validation.texts[:12]
    settings = {"file_name": "openvino/int8/openvino_model.xml"}
    with silence_exporters():
        model = SentenceTransformer(str(encoder_export.path), backend="openvino", device="cpu", model_kwargs=settings)
        theirs = model.encode(texts, batch_size=1)
    ours = np.concatenate([Session(encoder_export.path, "openvino-int8", threads=1).predict([text]) for text in texts])
    assert (theirs * ours).sum(axis=1).min() > 0.999


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["", "onnx", "onnx-int8", "openvino", "openvino/int8"])
def test_optimum_and_transformers_load_a_classifier(folder: str, classifier_export: Artifact, corpus: Corpus) -> None:
    kinds = {"": AutoModelForSequenceClassification, "on": ORTModelForSequenceClassification}
    kind = kinds.get(folder[:2], OVModelForSequenceClassification)
    texts = corpus.validation.texts[:8]
    with silence_exporters(), torch.inference_mode():
        model = kind.from_pretrained(classifier_export.path / folder)
        tokenizer = AutoTokenizer.from_pretrained(classifier_export.path)
        theirs = [
            model(**tokenizer(text, return_tensors="pt", truncation=True, max_length=100)).logits for text in texts
        ]
    form = {"onnx-int8": "onnxruntime-int8", "openvino/int8": "openvino-int8"}.get(folder, "openvino-f32")
    ours = np.concatenate([Session(classifier_export.path, form, threads=1).predict([text]) for text in texts])
    np.testing.assert_allclose(softmax(np.concatenate(theirs)), ours, atol=0.05 if folder else 1e-5)


@pytest.mark.parametrize("folder", ["", "onnx", "openvino"])
def test_optimum_and_transformers_load_an_encoder(folder: str, roberta_export: Artifact, corpus: Corpus) -> None:
    kinds = {"": AutoModel, "on": ORTModelForFeatureExtraction}
    text = corpus.validation.texts[0]
    session = Session(roberta_export.path, "onnxruntime-f32", threads=1)
    with silence_exporters(), torch.inference_mode():
        model = kinds.get(folder[:2], OVModelForFeatureExtraction).from_pretrained(roberta_export.path / folder)
        encoded = AutoTokenizer.from_pretrained(roberta_export.path)(text, return_tensors="pt")
        theirs = model(**encoded).last_hidden_state
    ids = np.array(session.encode([text]))
    assert encoded["input_ids"].tolist() == ids.tolist()
    np.testing.assert_allclose(np.asarray(theirs), session.run(ids, np.ones_like(ids)), atol=2e-2)


def test_a_pipeline_of_transformers_gives_the_same_label(classifier_export: Artifact) -> None:
    with silence_exporters():
        found = pipeline("text-classification", str(classifier_export.path), device="cpu")("Open a file.")
    expected = Session(classifier_export.path, "openvino-f32", threads=1).predict(["Open a file."])[0]
    assert found[0]["label"] == ["clean", "rude", "hateful"][int(expected.argmax())]
    assert found[0]["score"] == pytest.approx(float(expected.max()), abs=1e-4)
