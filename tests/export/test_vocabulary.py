"""Trimmed vocabularies: the same outputs on covered texts, for WordPiece and Unigram, and refused tokenizers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from kdnas.errors import BoundError, UsageError
from kdnas.export import run
from kdnas.export.checkpoint import Checkpoint, load_model, open_checkpoint
from kdnas.export.folder import read_tokenizer
from kdnas.export.options import ExportOptions
from kdnas.export.run import run_export
from kdnas.export.session import Session
from kdnas.export.vocabulary import covered_fraction, kept_ids, renumbered, trim, used_ids
from kdnas.models.teacher import BUILTIN, Teacher
from kdnas.store.artifact import Artifact
from kdnas.text.corpus import Corpus
from kdnas.text.readers import TextOptions

SENTENCES = 60  # corpus sentences that define the vocabulary


@pytest.fixture(params=["wordpiece", "unigram"])
def checkpoint(request: pytest.FixtureRequest, classifier_folder: Path, roberta_folder: Path) -> Checkpoint:
    return open_checkpoint(str(classifier_folder if request.param == "wordpiece" else roberta_folder))


def states(checkpoint: Checkpoint, texts: list[str]) -> list[np.ndarray]:
    """PyTorch's output for each text."""
    tokenizer, model = (
        read_tokenizer(checkpoint.path / "tokenizer.json", checkpoint.max_seq_len),
        load_model(checkpoint),
    )
    with torch.inference_mode():
        return [model(torch.tensor([tokenizer.encode(text).ids]))[0].numpy() for text in texts]


def test_outputs_on_covered_texts_do_not_change(checkpoint: Checkpoint, corpus: Corpus, tmp_path: Path) -> None:
    texts, held_out = corpus.train.texts[:SENTENCES], corpus.validation.texts
    trimmed = trim(checkpoint, texts, held_out, tmp_path)
    report = json.loads((tmp_path / "vocabulary.json").read_text())
    assert report["tokens_after"] == trimmed.config["vocab_size"] < report["tokens_before"]
    assert report["embeddings_mb_after"] < report["embeddings_mb_before"]
    assert 0 < report["tokenizer_mb_after"] <= report["tokenizer_mb_before"]
    assert 0 < report["held_out_texts_covered"] < report["held_out_tokens_covered"] < 1
    for before, after in zip(states(checkpoint, texts[:20]), states(trimmed, texts[:20]), strict=True):
        np.testing.assert_allclose(before, after, atol=1e-5)
    assert trimmed.pad_id == int(
        Tokenizer.from_file(str(trimmed.path / "tokenizer.json")).token_to_id("[PAD]" if trimmed.labels else "<pad>")
    )


def test_a_trimmed_model_loads_with_transformers(checkpoint: Checkpoint, corpus: Corpus, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    trimmed = trim(checkpoint, corpus.train.texts[:SENTENCES], corpus.validation.texts, tmp_path)
    theirs = AutoTokenizer.from_pretrained(trimmed.path)
    ours = read_tokenizer(trimmed.path / "tokenizer.json", trimmed.max_seq_len)
    for text in corpus.train.texts[:20]:
        ids = theirs(text, truncation=True, max_length=trimmed.max_seq_len)["input_ids"]
        assert ids == ours.encode(text).ids
    assert len(theirs) == trimmed.config["vocab_size"]
    assert theirs.pad_token_id == trimmed.pad_id


def test_all_known_characters_stay_known(checkpoint: Checkpoint, corpus: Corpus, tmp_path: Path) -> None:
    whole = read_tokenizer(checkpoint.path / "tokenizer.json", 512)
    trimmed = trim(checkpoint, corpus.train.texts[:3], corpus.validation.texts[:50], tmp_path)
    cut = read_tokenizer(trimmed.path / "tokenizer.json", 512)
    names = ("[UNK]", "<unk>")
    for text in corpus.validation.texts[:50]:
        known = not set(whole.encode(text).tokens) & set(names)
        assert not known or not set(cut.encode(text).tokens) & set(names)


@pytest.mark.slow
def test_an_export_with_a_trimmed_vocabulary(
    classifier_folder: Path, corpus: Corpus, tmp_path: Path, classifier_export: Any
) -> None:
    options = ExportOptions(calibration_sentences=24, parity_sentences=24, vocabulary="corpus")
    checkpoint = open_checkpoint(str(classifier_folder))
    found = run_export(tmp_path, checkpoint.path, checkpoint.digest, corpus, options)
    vocabulary = found.results["vocabulary"]
    assert vocabulary["tokens_after"] < vocabulary["tokens_before"] == 4000
    card = (found.path / "README.md").read_text()
    assert f"{vocabulary['tokens_after']:,} of 4,000 tokens were kept" in card
    sizes = [one.results["forms"]["openvino-f32"]["size_mb"] for one in (found, classifier_export)]
    assert sizes[0] < 0.8 * sizes[1]
    texts = corpus.train.texts[:40]
    whole, cut = (Session(one.path, "openvino-f32", threads=1).predict(texts) for one in (classifier_export, found))
    np.testing.assert_allclose(cut, whole, atol=1e-5)


@pytest.mark.slow
def test_only_the_most_frequent_tokens_are_kept(checkpoint: Checkpoint, corpus: Corpus, tmp_path: Path) -> None:
    texts = corpus.train.texts[:SENTENCES]
    for name in ("whole", "small"):
        (tmp_path / name).mkdir()
    whole = trim(checkpoint, texts, corpus.validation.texts, tmp_path / "whole")
    small = trim(checkpoint, texts, corpus.validation.texts, tmp_path / "small", most=40)
    tokenizers = [read_tokenizer(one.path / "tokenizer.json", 512) for one in (whole, small)]
    vocabularies = [set(tokenizer.get_vocab()) for tokenizer in tokenizers]
    assert vocabularies[1] < vocabularies[0]
    longer, shorter = (
        sum(len(one.ids) for one in tokenizer.encode_batch(texts[:50])) for tokenizer in tokenizers[::-1]
    )
    assert longer > shorter
    with pytest.raises(UsageError, match=r"at least 1, .*--vocabulary corpus"):
        ExportOptions(vocabulary_tokens=40)


TEXTS = ["the cat sat on the mat", "a bat and a rat", "thematic catalogue", "natation, batter!"]


def unigram() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=60, special_tokens=["<s>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS * 20, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    return tokenizer


def wordpiece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordPieceTrainer(vocab_size=70, special_tokens=["[CLS]", "[SEP]", "[UNK]"], show_progress=False)
    tokenizer.train_from_iterator(TEXTS * 20, trainer)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 1), ("[CLS]", 0))
    return tokenizer


WHOLE = {"unigram": unigram(), "wordpiece": wordpiece()}


@pytest.mark.parametrize("kind", WHOLE)
@settings(max_examples=200)
@given(
    st.lists(st.text("thecasonmbrdlgui ,!?é", max_size=30), max_size=4), st.text("thecasonmbrdlgui ,!?éß", max_size=40)
)
def test_covered_texts_are_tokenised_as_before(kind: str, texts: list[str], other: str) -> None:
    whole = WHOLE[kind]
    description = json.loads(whole.to_str())
    kept = kept_ids(description, used_ids(whole, texts))
    cut = Tokenizer.from_str(json.dumps(renumbered(description, kept)))
    assert cut.get_vocab_size() == len(kept)
    for text in (*texts, other):
        before = whole.encode(text)
        if set(before.ids) <= set(kept):
            assert cut.encode(text).tokens == before.tokens
            assert [kept[number] for number in cut.encode(text).ids] == before.ids
    assert covered_fraction(whole, cut, texts, kept)["held_out_texts_covered"] in (0, 1)


def test_changed_tokenisation_is_detected() -> None:
    whole = WHOLE["unigram"]
    description = json.loads(whole.to_str())
    kept = kept_ids(description, used_ids(whole, TEXTS))
    wrong = renumbered(description, kept)
    wrong["model"]["vocab"][3:] = wrong["model"]["vocab"][:2:-1]
    with pytest.raises(BoundError, match="tokenised differently"):
        covered_fraction(whole, Tokenizer.from_str(json.dumps(wrong)), TEXTS, kept)


def test_bpe_tokenizers_and_ids_without_embeddings_are_refused(
    tiny_teacher: Teacher, corpus: Corpus, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"a BPE tokenizer, only WordPiece and Unigram"):
        kept_ids({"model": {"type": "BPE"}, "added_tokens": []}, [1, 2])
    checkpoint = open_checkpoint(str(tiny_teacher.path))
    short = Checkpoint(checkpoint.path, {**checkpoint.config, "vocab_size": 2000}, checkpoint.digest)
    with pytest.raises(UsageError, match=r"its tokenizer has id \d+, .* 2000 rows"):
        trim(short, corpus.train.texts[:50], corpus.validation.texts[:50], tmp_path)


def test_languages_select_a_vocabulary_of_their_texts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[Any] = []

    def record(*arguments: Any) -> Artifact:
        seen.extend(arguments)
        row = {"latency_ms": 1.0, "size_mb": 1.0, "loss_points": 0.0, "loss_of": "mean cosine"}
        return Artifact(tmp_path, {"results": {"forms": {"openvino-f32": row}, "max_loss_points": 1.0}})

    monkeypatch.setattr(run, "build_corpus", record)
    monkeypatch.setattr(run, "run_export", record)
    run.export(BUILTIN, corpus="texts.jsonl", home=tmp_path, languages=("de", "sw"))
    assert seen[2].languages == ("de", "sw")
    assert seen[-1].vocabulary == "corpus"
    with pytest.raises(UsageError, match=r"languages and text\.languages are de and en; give one of them"):
        run.export(BUILTIN, text=TextOptions(languages=("en",)), languages=("de",))
