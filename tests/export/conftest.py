"""Tiny models of each kind and one export of each, shared by the tests of this package."""

import json
from pathlib import Path
from typing import Any

import pytest

from kdnas.export.checkpoint import open_checkpoint
from kdnas.export.options import ExportOptions
from kdnas.models.pooling import write_modules
from kdnas.models.teacher import Teacher
from kdnas.store.artifact import Artifact
from kdnas.text.corpus import Corpus

from ..classifier_fixture import export_once

SHAPE = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 48, "intermediate_size": 80}
OPTIONS = ExportOptions(calibration_sentences=24, parity_sentences=24, recipes=("static", "dynamic"))
EVERY_RECIPE = ExportOptions(calibration_sentences=24, parity_sentences=24)


@pytest.fixture(scope="session")
def encoder_export(shared_home: Path, tiny_teacher: Teacher, corpus: Corpus) -> Artifact:
    """Export of the tiny random BERT."""
    return export_once(shared_home, tiny_teacher.path, tiny_teacher.digest, corpus, OPTIONS)


@pytest.fixture(scope="session")
def classifier_folder(tiny_teacher: Teacher, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT classifier of three labels."""
    labels = {0: "clean", 1: "rude", 2: "hateful"}
    folder = tmp_path_factory.mktemp("tiny-classifier")
    return random_model("BertForSequenceClassification", tiny_teacher, folder, id2label=labels)


def random_model(kind: str, teacher: Teacher, folder: Path, **settings: Any) -> Path:
    """A random BERT with a head, with weights that are large enough for outputs to differ."""
    import torch
    import transformers

    torch.manual_seed(3)
    config = transformers.BertConfig(
        vocab_size=teacher.config["vocab_size"], initializer_range=0.2, max_position_embeddings=100, **settings, **SHAPE
    )
    getattr(transformers, kind)(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((teacher.path / name).read_bytes())
    return folder


@pytest.fixture(scope="session")
def token_folder(tiny_teacher: Teacher, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random classifier of tokens with three labels."""
    labels = {0: "O", 1: "PER", 2: "LOC"}
    return random_model(
        "BertForTokenClassification", tiny_teacher, tmp_path_factory.mktemp("tiny-tokens"), id2label=labels
    )


@pytest.fixture(scope="session")
def token_export(shared_home: Path, token_folder: Path, corpus: Corpus) -> Artifact:
    """Its export."""
    return export_once(shared_home, token_folder, open_checkpoint(str(token_folder)).digest, corpus, OPTIONS)


@pytest.fixture(scope="session")
def question_folder(tiny_teacher: Teacher, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random question answerer."""
    return random_model("BertForQuestionAnswering", tiny_teacher, tmp_path_factory.mktemp("tiny-questions"))


@pytest.fixture(scope="session")
def question_export(shared_home: Path, question_folder: Path, corpus: Corpus) -> Artifact:
    """Its export."""
    return export_once(shared_home, question_folder, open_checkpoint(str(question_folder)).digest, corpus, OPTIONS)


@pytest.fixture(scope="session")
def classifier_export(shared_home: Path, classifier_folder: Path, corpus: Corpus) -> Artifact:
    """Export of the tiny random classifier, with every recipe."""
    return export_once(
        shared_home, classifier_folder, open_checkpoint(str(classifier_folder)).digest, corpus, EVERY_RECIPE
    )


@pytest.fixture(scope="session")
def regression_folder(tiny_teacher: Teacher, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT with one output, which `transformers` interprets as a regression."""
    folder = tmp_path_factory.mktemp("tiny-regression")
    return random_model("BertForSequenceClassification", tiny_teacher, folder, num_labels=1)


@pytest.fixture(scope="session")
def regression_export(shared_home: Path, regression_folder: Path, corpus: Corpus) -> Artifact:
    """Export of the tiny random regression."""
    digest = open_checkpoint(str(regression_folder)).digest
    return export_once(shared_home, regression_folder, digest, corpus, ExportOptions(16, 16))


@pytest.fixture(scope="session")
def roberta_folder(corpus_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random XLM-RoBERTa that pools its first token, with a tokenizer trained on the corpus: positions start at 2."""
    import torch
    from sentencepiece import SentencePieceTrainer
    from transformers import XLMRobertaConfig, XLMRobertaModel, XLMRobertaTokenizerFast

    folder = tmp_path_factory.mktemp("tiny-xlmr")
    texts = [json.loads(line)["text"] for line in corpus_file.read_text().splitlines()[:400]]
    file = folder.with_suffix(".model")
    with file.open("wb") as model:
        SentencePieceTrainer.train(
            sentence_iterator=iter(texts), model_writer=model, vocab_size=300, minloglevel=2, character_coverage=0.99
        )
    tokenizer = XLMRobertaTokenizerFast(vocab_file=str(file))
    tokenizer.save_pretrained(folder)
    torch.manual_seed(2)
    config = XLMRobertaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=92, pad_token_id=1, type_vocab_size=1,
        hidden_act="gelu_new", **SHAPE,
    )  # fmt: skip
    XLMRobertaModel(config, add_pooling_layer=False).save_pretrained(folder)
    write_modules(folder, config.hidden_size, 90, "first")
    return folder


@pytest.fixture(scope="session")
def roberta_export(shared_home: Path, roberta_folder: Path, corpus: Corpus) -> Artifact:
    """Export of the tiny random XLM-RoBERTa; the corpus was tokenised by another tokenizer."""
    return export_once(shared_home, roberta_folder, open_checkpoint(str(roberta_folder)).digest, corpus, OPTIONS)
