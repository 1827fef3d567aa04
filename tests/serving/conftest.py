"""Exports for the service."""

from pathlib import Path
from typing import Any

import pytest

from kdnas.models.teacher import Teacher
from kdnas.text.corpus import Corpus

from ..classifier_fixture import classifier, encoder, export_tiny, kdnas, sentences

__all__ = ["classifier", "encoder", "kdnas", "sentences"]


def with_task_head(kind: str, home: Path, teacher: Teacher, corpus: Corpus, folder: Path, **settings: Any) -> Path:
    """An export of a tiny random model with a head and 64 positions."""
    import torch
    import transformers

    torch.manual_seed(0)
    shape = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32, "intermediate_size": 64}
    config = transformers.BertConfig(
        vocab_size=teacher.config["vocab_size"], max_position_embeddings=64, initializer_range=0.5, **shape, **settings
    )
    getattr(transformers, kind)(config).save_pretrained(folder)
    return export_tiny(home, folder, teacher, corpus)


@pytest.fixture(scope="session")
def tagger(shared_home: Path, tiny_teacher: Teacher, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported classifier of tokens with five BIO labels."""
    labels = dict(enumerate(["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]))
    folder = tmp_path_factory.mktemp("models") / "tiny-ner"
    return with_task_head("BertForTokenClassification", shared_home, tiny_teacher, corpus, folder, id2label=labels)


@pytest.fixture(scope="session")
def answerer(
    shared_home: Path, tiny_teacher: Teacher, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """An exported question answerer."""
    folder = tmp_path_factory.mktemp("models") / "tiny-qa"
    return with_task_head("BertForQuestionAnswering", shared_home, tiny_teacher, corpus, folder)


@pytest.fixture(scope="session")
def regressor(
    shared_home: Path, tiny_teacher: Teacher, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """An exported regression of texts: one number."""
    folder = tmp_path_factory.mktemp("models") / "tiny-regression"
    return with_task_head("BertForSequenceClassification", shared_home, tiny_teacher, corpus, folder, num_labels=1)
