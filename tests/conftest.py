"""Shared fixtures: the packaged teacher, a tiny one, and a small corpus of real sentences."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Tests run in parallel: a busily waiting thread would take the core that another thread needs.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import numpy
import pytest

from kdnas.models.teacher import BUILTIN, Teacher, resolve_teacher
from kdnas.store.progress import show_messages
from kdnas.text.corpus import Corpus, build_corpus
from kdnas.text.pydocs import sentences_of_file
from kdnas.text.readers import TextOptions

# Timing belongs in benchmarks: a test must not fail because the host is busy.
hypothesis.settings.register_profile("kdnas", deadline=None)
hypothesis.settings.load_profile("kdnas")
show_messages()  # tests read messages on stderr, where commands write them

# Fixtures that export a model: tests with them are slow. `encoder_export` is left, so that the quick tests run a session.
SLOW_FIXTURES = {
    "classifier_export",
    "encoder",
    "question_export",
    "regression_export",
    "roberta_export",
    "token_export",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests with slow fixtures as slow."""
    for item in items:
        if SLOW_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker("slow")


# The special tokens, the characters and the most frequent words: every text has a tokenization, and a step costs little.
VOCABULARY = 4000
SAMPLE_SENTENCES = 100
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data next to the checkout; not part of the product."""
    if not SHARED.is_dir():
        pytest.skip("the real data sets (../shared/data) are not available")
    return SHARED


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of artifacts, shared by the whole test run."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of the exports that all processes of a test run share."""
    own = tmp_path_factory.getbasetemp()
    home = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared"
    home.mkdir(exist_ok=True)
    return home


@pytest.fixture(scope="session")
def teacher() -> Teacher:
    """The packaged teacher: real weights."""
    return resolve_teacher(BUILTIN)


@pytest.fixture(scope="session")
def tiny_teacher(teacher: Teacher, tmp_path_factory: pytest.TempPathFactory) -> Teacher:
    """A small random BERT with 4 layers, 12 heads and width 96, and the packaged tokenizer's first `VOCABULARY` entries."""
    import torch
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("tiny-teacher")
    torch.manual_seed(0)
    shape = {"num_hidden_layers": 4, "num_attention_heads": 12, "hidden_size": 96, "intermediate_size": 192}
    config = BertConfig(vocab_size=VOCABULARY, **shape)
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).write_bytes((teacher.path / name).read_bytes())
    entries = (teacher.path / "vocab.txt").read_text().splitlines(keepends=True)
    (folder / "vocab.txt").write_text("".join(entries[:VOCABULARY]))
    tokenizer = json.loads((teacher.path / "tokenizer.json").read_text())
    rows = tokenizer["model"]["vocab"]
    tokenizer["model"]["vocab"] = {entry: row for entry, row in rows.items() if row < VOCABULARY}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return resolve_teacher(str(folder))


@pytest.fixture(scope="session")
def corpus_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """JSONL with a few thousand real sentences: docstrings of numpy, with subpackage and module."""
    root = Path(numpy.__file__).parent
    file = tmp_path_factory.mktemp("corpus") / "numpy.jsonl"
    with file.open("w") as out:
        for source in sorted(root.rglob("*.py")):
            parts = source.relative_to(root).with_suffix("").parts
            for text, topic, group in sentences_of_file(source, parts[0], ".".join(parts)):
                out.write(json.dumps({"text": text, "topic": topic, "group": group}) + "\n")
    return file


@pytest.fixture(scope="module")
def small_sample() -> Iterator[None]:
    """A small sample for the start of a student: passes over the usual one take longer than the training of a test."""
    from kdnas.distill import embedding_stage, loaded_teacher

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loaded_teacher, "SAMPLE_SENTENCES", SAMPLE_SENTENCES)
        patch.setattr(embedding_stage, "HEAD_SENTENCES", 4 * SAMPLE_SENTENCES)
        yield


TEXT = TextOptions(topic="topic", group="group", seq_len=64, validation_fraction=0.2)


@pytest.fixture(scope="session")
def corpus(home: Path, corpus_file: Path, tiny_teacher: Teacher) -> Corpus:
    """The small corpus, for the tiny teacher."""
    return build_corpus(home, str(corpus_file), TEXT, tiny_teacher)


@pytest.fixture(scope="session")
def full_corpus(home: Path, corpus_file: Path, teacher: Teacher) -> Corpus:
    """The small corpus, for the packaged teacher."""
    return build_corpus(home, str(corpus_file), TEXT, teacher)
