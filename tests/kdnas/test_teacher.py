import json
import shutil
from pathlib import Path

import pytest
import torch

from kdnas import teacher as module
from kdnas.errors import KdnasError, UsageError
from kdnas.teacher import BUILTIN, Teacher, load_encoder, load_tokenizer, resolve_teacher


@pytest.fixture
def copy(tiny_teacher: Teacher, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_teacher.path, tmp_path / "teacher"))


def test_the_packaged_teacher_embeds_meaning(teacher: Teacher) -> None:
    assert (teacher.layers, teacher.hidden, teacher.label) == (6, 384, "minilm-l6")
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


def test_changed_weights_of_the_packaged_teacher_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUILTIN_SHA256", "0" * 64)
    with pytest.raises(KdnasError, match="reinstall the package"):
        resolve_teacher(BUILTIN)


def test_a_folder_is_a_teacher_and_its_digest_follows_its_weights(copy: Path) -> None:
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
def test_a_missing_part_is_named(copy: Path, remove: str, message: str) -> None:
    (copy / remove).unlink()
    with pytest.raises(UsageError, match=message):
        resolve_teacher(str(copy))


def test_an_unsupported_kind_is_refused(copy: Path) -> None:
    (copy / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(UsageError, match="model_type is 'gpt2'; supported are bert, roberta, xlm-roberta"):
        resolve_teacher(str(copy))
    (copy / "config.json").write_text("{")
    with pytest.raises(UsageError, match="not valid JSON"):
        resolve_teacher(str(copy))


@pytest.mark.parametrize("spec", ["no-such-folder", "./no/such", "/no/such", "builtin:other", "a/b/c", "bad name/x y"])
def test_a_wrong_spec_is_explained(spec: str) -> None:
    with pytest.raises(UsageError, match=r"no such folder|only packaged teacher|neither a folder"):
        resolve_teacher(spec)


def test_a_hub_that_cannot_be_reached_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(KdnasError, match="the hub cannot be reached; check the network"):
        resolve_teacher("owner/no-such-model")


@pytest.mark.parametrize("kind", ["roberta", "xlm-roberta"])
def test_roberta_kinds_load(kind: str, tiny_teacher: Teacher, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModel

    shape = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 32, "intermediate_size": 64}
    config = AutoConfig.for_model(kind, vocab_size=100, **shape)
    AutoModel.from_config(config, add_pooling_layer=False).save_pretrained(tmp_path)
    shutil.copy(tiny_teacher.path / "tokenizer.json", tmp_path)
    found = resolve_teacher(str(tmp_path))
    assert load_encoder(found.path).config.model_type == kind
