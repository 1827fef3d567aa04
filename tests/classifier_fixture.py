"""Fixtures of the service and the filter: exports of tiny random models with the packaged tokenizer, and sentences."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from kdnas.export.options import ExportOptions
from kdnas.models.teacher import Teacher
from kdnas.store.artifact import Artifact
from kdnas.text.corpus import Corpus


def export_once(home: Path, folder: Path, digest: str, corpus: Corpus, options: ExportOptions) -> Artifact:
    """Export a model; the second process that asks for the same export gets that of the first."""
    from kdnas.export.run import run_export

    with FileLock(home / f"{digest}.lock"):
        return run_export(home, folder, digest, corpus, options)


def export_tiny(home: Path, folder: Path, teacher: Teacher, corpus: Corpus) -> Path:
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        (folder / name).write_bytes((teacher.path / name).read_bytes())
    options = ExportOptions(calibration_sentences=16, parity_sentences=16)
    return export_once(home, folder, f"test-{folder.name}", corpus, options).path


@pytest.fixture(scope="session")
def classifier(
    shared_home: Path, teacher: Teacher, full_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """An exported classifier with the labels `ok` and `hap`, 64 positions, and scores that spread over 0 to 1."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    shape = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32, "intermediate_size": 64}
    config = BertConfig(
        vocab_size=teacher.config["vocab_size"],
        max_position_embeddings=64,
        id2label={0: "ok", 1: "hap"},
        label2id={"ok": 0, "hap": 1},
        initializer_range=0.5,
        **shape,
    )
    folder = tmp_path_factory.mktemp("models") / "tiny-hap"
    BertForSequenceClassification(config).save_pretrained(folder)
    return export_tiny(shared_home, folder, teacher, full_corpus)


@pytest.fixture(scope="session")
def encoder(shared_home: Path, teacher: Teacher, full_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported encoder without a head, 32 wide, 64 positions."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    shape = {"num_hidden_layers": 1, "num_attention_heads": 4, "hidden_size": 32, "intermediate_size": 64}
    config = BertConfig(vocab_size=teacher.config["vocab_size"], max_position_embeddings=64, **shape)
    folder = tmp_path_factory.mktemp("models") / "tiny-encoder"
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    return export_tiny(shared_home, folder, teacher, full_corpus)


@pytest.fixture(scope="session")
def sentences(full_corpus: Corpus) -> list[str]:
    """Real sentences that are short enough for the models."""
    return [text for text in full_corpus.validation.texts if len(text) <= 150]


@pytest.fixture
def kdnas(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line until it exits: `kdnas("filter", "--model", ...)`."""

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "kdnas.cli", *map(str, words)],
            capture_output=True,
            text=True,
            timeout=60,
            env=os.environ | {"KDNAS_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"},
        )

    return run
