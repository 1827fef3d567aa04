"""Teachers whose students are stock BERT: distillation, refinement, loading, evaluation and export work as for others."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer, BertModel

from kdnas.distill.options import DistillOptions, RefineOptions
from kdnas.distill.run import run_distill, run_refine
from kdnas.distill.warm_start import TeacherLayers
from kdnas.evaluation.geometry import geometry
from kdnas.export.checkpoint import open_checkpoint
from kdnas.export.options import ExportOptions
from kdnas.export.run import run_export
from kdnas.export.session import Session
from kdnas.models.arch import Arch
from kdnas.models.pooling import pooling_of, write_modules
from kdnas.models.student import student_from_teacher
from kdnas.models.teacher import Teacher, load_encoder, resolve_teacher
from kdnas.text.corpus import Corpus

from ..models.family_fixture import FFN, HEADS, HIDDEN, LAYERS, tiny_model

COMMON = {
    "steps": 3,
    "batch_tokens": 512,
    "validations": 1,
    "validation_sentences": 40,
    "precision": "f32",
    "pair_fraction": 0.5,
}


class Made(NamedTuple):
    """A teacher, and the folder of a student that was distilled and refined from it."""

    teacher: Teacher
    student: Path


@pytest.fixture(scope="module", params=["distilbert", "mpnet"])
def made(
    request: pytest.FixtureRequest, teacher: Teacher, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory
) -> Made:
    """The student after three steps of each stage."""
    home = tmp_path_factory.mktemp(request.param)
    folder = home / "teacher"
    tiny_model(request.param, teacher, folder)
    file = folder / "tokenizer_config.json"
    names = {"distilbert": "DistilBertTokenizer", "mpnet": "MPNetTokenizer"}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"tokenizer_class": names[request.param]}))
    write_modules(folder, HIDDEN, 128, "first")
    found = resolve_teacher(str(folder))
    begun = run_distill(home, found, corpus, Arch(2, 3, 36, 64), DistillOptions(relation_weight=1.0, **COMMON))
    refined = run_refine(home, found, corpus, begun.path / "student", begun.digest, RefineOptions(**COMMON))
    return Made(found, refined.path / "student")


def test_student_is_stock_bert(made: Made, corpus: Corpus) -> None:
    model, info = AutoModel.from_pretrained(made.student, add_pooling_layer=False, output_loading_info=True)
    assert type(model) is BertModel
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert model.config.vocab_size == made.teacher.config["vocab_size"]
    assert model.config.max_position_embeddings == made.teacher.sizes.positions


def test_student_tokenizer_gives_the_ids_of_the_teacher_and_the_token_types_of_training(made: Made) -> None:
    theirs, ours = (AutoTokenizer.from_pretrained(path) for path in (made.teacher.path, made.student))
    assert (made.student / "tokenizer.json").read_bytes() == (made.teacher.path / "tokenizer.json").read_bytes()
    pair = ours("A short sentence.", "And another one.", return_tensors="pt")
    assert (
        pair["input_ids"].tolist()
        == theirs("A short sentence.", "And another one.", return_tensors="pt")["input_ids"].tolist()
    )
    assert set(pair["token_type_ids"].flatten().tolist()) == {0, 1}
    assert ours.pad_token_id == theirs.pad_token_id
    assert AutoModel.from_pretrained(made.student)(**pair).last_hidden_state.shape[-1] == 36


def test_student_has_the_pooling_of_the_teacher(made: Made) -> None:
    assert pooling_of(made.student) == "first"


def test_geometry_uses_the_pooling_of_the_teacher(made: Made, corpus: Corpus) -> None:
    found = geometry(made.teacher.path, made.student, corpus, map_sentences=60, sentences=60, seed=0)
    assert len(found["explained_variance_layers"]) == LAYERS
    assert 0 <= found["recall_at_10"] <= 1


@pytest.mark.slow
def test_exported_student_agrees_with_pytorch(made: Made, corpus: Corpus, tmp_path: Path) -> None:
    options = ExportOptions(forms=("onnxruntime-f32",), calibration_sentences=24, parity_sentences=24)
    done = run_export(tmp_path, made.student, open_checkpoint(str(made.student)).digest, corpus, options)
    session, texts = Session(done.path), corpus.validation.texts[:3]
    assert session.pooling == "first"
    model, tokenizer = load_encoder(made.student), AutoTokenizer.from_pretrained(made.student)
    with torch.inference_mode():
        states = model(**tokenizer(texts, padding=True, truncation=True, max_length=128, return_tensors="pt"))
    expected = torch.nn.functional.normalize(states.last_hidden_state[:, 0], dim=-1).numpy()
    np.testing.assert_allclose(session.predict(texts), expected, atol=1e-4)


def test_student_with_the_shape_of_the_teacher_starts_as_the_teacher(made: Made, corpus: Corpus) -> None:
    """The student lacks only MPNet's bias by relative position."""
    teacher = load_encoder(made.teacher.path)
    if made.teacher.config["model_type"] == "mpnet":
        torch.nn.init.zeros_(teacher.encoder.relative_attention_bias.weight)
    student = student_from_teacher(Arch(LAYERS, HEADS, HIDDEN, FFN), teacher, seed=0).eval()
    ids, mask = map(torch.from_numpy, corpus.train.batch(np.arange(8), corpus.pad_id))
    TeacherLayers(teacher, [(ids, mask)]).start(student)
    ours, theirs = (model(input_ids=ids, attention_mask=mask).last_hidden_state for model in (student, teacher))
    torch.testing.assert_close(ours[mask.bool()], theirs[mask.bool()], rtol=1e-3, atol=1e-3)
