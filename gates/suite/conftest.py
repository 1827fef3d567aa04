"""Fixtures of the project's benchmarks: texts, and an exported classifier with random weights, built once per side."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

CACHE = Path(os.environ.get("KDNAS_GATE_CACHE", "artifacts/gate-cache"))
MODEL = os.environ.get("KDNAS_GATE_MODEL")  # an export to time instead of the random one
WORDS = ("the", "model", "returns", "an", "array", "of", "integers", "while", "reading", "files", "quickly", "network")


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """128 texts of 4 to 60 words."""
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS, int(rng.integers(4, 61)))) for _ in range(128)]


@pytest.fixture(scope="session")
def exported(texts: list[str]) -> Path:
    """Folder of an export: `--model`, or a random classifier with the architecture 3,12,384,576."""
    if MODEL:
        return Path(MODEL)
    made = CACHE / "exported.json"
    if made.is_file():
        return Path(json.loads(made.read_text()))
    path = _export(texts)
    made.write_text(json.dumps(str(path)))
    return path


def _export(texts: list[str]) -> Path:
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    from kdnas.export.checkpoint import open_checkpoint
    from kdnas.export.options import ExportOptions
    from kdnas.export.run import run_export
    from kdnas.models.teacher import BUILTIN, resolve_teacher
    from kdnas.text.corpus import build_corpus
    from kdnas.text.readers import TextOptions

    torch.manual_seed(0)
    teacher, folder = resolve_teacher(BUILTIN), CACHE / "model"
    config = BertConfig(
        vocab_size=teacher.config["vocab_size"], num_hidden_layers=3, num_attention_heads=12, hidden_size=384,
        intermediate_size=576, id2label={0: "ok", 1: "hap"}, label2id={"ok": 0, "hap": 1},
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        (folder / name).write_bytes((teacher.path / name).read_bytes())
    file = CACHE / "texts.txt"
    file.write_text("\n".join(f"{text} {number}" for number, text in enumerate(texts)))
    corpus = build_corpus(CACHE, str(file), TextOptions(), resolve_teacher(str(folder)))
    options = ExportOptions(calibration_sentences=8, parity_sentences=8, forms=("onnxruntime-f32", "openvino-f32"))
    return run_export(CACHE, folder, open_checkpoint(str(folder)).digest, corpus, options).path
