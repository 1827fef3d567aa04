import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kdnas.errors import KdnasError, UsageError
from kdnas.models import teacher as module
from kdnas.models.arch import Arch
from kdnas.models.teacher import (
    BUILTIN,
    SHAPE,
    Teacher,
    load_config,
    load_encoder,
    load_tokenizer,
    resolve_shape,
    resolve_teacher,
    resolve_tokenizer,
)


@pytest.fixture
def copy(tiny_teacher: Teacher, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_teacher.path, tmp_path / "teacher"))


def test_packaged_teacher_embeds_similar_texts_close_together(teacher: Teacher) -> None:
    assert (teacher.layers, teacher.hidden, teacher.label) == (6, 384, "minilm-l6")
    assert teacher.shape == Arch(6, 12, 384, 1536, "gelu")
    assert replace(teacher, config={**teacher.config, "hidden_act": "gelu_new"}).shape is None  # not a student shape
    model, tokenizer = load_encoder(teacher.path), load_tokenizer(teacher.path)
    assert model.pooler is None
    assert not model.training
    assert not any(weight.requires_grad for weight in model.parameters())
    texts = ["A cat sits on the mat.", "A kitten is resting on a rug.", "The central bank raised interest rates."]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    mask = batch["attention_mask"][..., None]
    with torch.inference_mode():
        pooled = (model(**batch).last_hidden_state * mask).sum(1) / mask.sum(1)
    near, far = torch.cosine_similarity(pooled[:1], pooled[1:])
    assert near > 0.5 > 0.2 > far


def test_changed_weights_of_the_packaged_teacher_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUILTIN_SHA256", "0" * 64)
    with pytest.raises(KdnasError, match="reinstall the package"):
        resolve_teacher(BUILTIN)


def test_digest_of_a_teacher_folder_depends_on_its_files(copy: Path) -> None:
    first = resolve_teacher(str(copy))
    assert first.layers == 4
    (copy / "config.json").write_text((copy / "config.json").read_text() + "\n")
    assert resolve_teacher(str(copy)).digest != first.digest


@pytest.mark.parametrize(
    ("remove", "message"),
    [
        ("config.json", "config.json is missing"),
        ("model.safetensors", "convert to safetensors"),
        ("tokenizer.json", "save its fast tokenizer there"),
    ],
)
def test_missing_file_is_reported(copy: Path, remove: str, message: str) -> None:
    (copy / remove).unlink()
    with pytest.raises(UsageError, match=message):
        resolve_teacher(str(copy))


def test_unsupported_model_type_is_rejected(copy: Path) -> None:
    (copy / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(UsageError, match="model_type is 'gpt2'; supported are bert, roberta, xlm-roberta"):
        resolve_teacher(str(copy))
    (copy / "config.json").write_text("{")
    with pytest.raises(UsageError, match="not valid JSON"):
        resolve_teacher(str(copy))


@pytest.mark.parametrize("spec", ["no-such-folder", "./no/such", "/no/such", "builtin:other", "a/b/c", "bad name/x y"])
def test_invalid_spec_is_reported(spec: str) -> None:
    with pytest.raises(UsageError, match=r"no such folder|no packaged teacher|neither a folder"):
        resolve_teacher(spec)


def test_unreachable_hub_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(KdnasError, match="the hub cannot be reached; check the network"):
        resolve_teacher("owner/no-such-model")


@pytest.mark.parametrize("kind", ["roberta", "xlm-roberta"])
def test_roberta_models_load(kind: str, tiny_teacher: Teacher, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModel

    shape = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 32, "intermediate_size": 64}
    config = AutoConfig.for_model(kind, vocab_size=100, **shape)
    AutoModel.from_config(config, add_pooling_layer=False).save_pretrained(tmp_path)
    shutil.copy(tiny_teacher.path / "tokenizer.json", tmp_path)
    found = resolve_teacher(str(tmp_path))
    assert load_encoder(found.path).config.model_type == kind


def test_published_shape_is_valid_for_timing_but_not_as_a_teacher() -> None:
    found = resolve_shape(SHAPE)
    assert (found.layers, found.hidden, found.config["vocab_size"]) == (12, 768, 250002)
    assert found.label == "xlm-roberta-base"
    config = load_config(found.path)
    assert (config.model_type, config.num_attention_heads, config.intermediate_size) == ("xlm-roberta", 12, 3072)
    with pytest.raises(UsageError, match=r"a shape without weights.*FacebookAI/xlm-roberta-base"):
        resolve_teacher(SHAPE)


def test_shape_of_a_teacher_is_the_teacher(teacher: Teacher, copy: Path) -> None:
    assert resolve_shape(BUILTIN) == teacher
    assert resolve_shape(str(copy)) == resolve_teacher(str(copy))
    (copy / "tokenizer.json").unlink()
    with pytest.raises(UsageError, match="save its fast tokenizer there"):
        resolve_shape(str(copy))


def test_configuration_without_weights_is_a_shape(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    (copy / "tokenizer.json").unlink()
    first = resolve_shape(str(copy))
    assert (first.layers, first.hidden) == (4, 96)
    (copy / "config.json").write_text((copy / "config.json").read_text() + "\n")
    assert resolve_shape(str(copy)).digest != first.digest
    (copy / "config.json").unlink()
    with pytest.raises(UsageError, match=r"config\.json is missing"):
        resolve_shape(str(copy))


def test_default_tokenizer_is_the_models_or_the_packaged_one(teacher: Teacher, copy: Path) -> None:
    shutil.copy(teacher.path / "tokenizer.json", copy)
    shape, own = resolve_shape(SHAPE), resolve_shape(str(copy))
    assert resolve_tokenizer(None, own) == own
    assert resolve_tokenizer(None, shape).path == teacher.path
    assert resolve_tokenizer(None, shape) == resolve_tokenizer(BUILTIN, shape) == resolve_tokenizer(BUILTIN, own)
    given = resolve_tokenizer(str(copy), shape)
    assert given.path == copy
    assert given.digest == resolve_tokenizer(None, shape).digest  # the copy has the packaged tokenizer
    (copy / "tokenizer.json").write_text((copy / "tokenizer.json").read_text() + "\n")
    assert resolve_tokenizer(str(copy), shape).digest != given.digest


def test_folder_with_only_a_tokenizer_is_accepted(copy: Path, tmp_path: Path) -> None:
    alone = tmp_path / "tokenizer"
    alone.mkdir()
    shutil.copy(copy / "tokenizer.json", alone)
    assert resolve_tokenizer(str(alone), resolve_shape(SHAPE)).path == alone
    (alone / "tokenizer.json").unlink()
    with pytest.raises(
        UsageError, match=r"tokenizer\.json is missing; give a folder with a fast tokenizer, or 'builtin"
    ):
        resolve_tokenizer(str(alone), resolve_shape(SHAPE))
    with pytest.raises(UsageError, match="tokenizer 'builtin:xlm-roberta-base'"):
        resolve_tokenizer(SHAPE, resolve_shape(SHAPE))
