"""SentencePiece replaces a Unigram tokenizer only if both give the same ids."""

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import XLMRobertaTokenizerFast

from kdnas.errors import UsageError
from kdnas.export.encoder import (
    SENTENCEPIECE,
    THREADED,
    TOKENIZER,
    SentencePieceEncoder,
    TokenizersEncoder,
    read_encoder,
)
from kdnas.export.folder import read_settings
from kdnas.export.sentencepiece_form import write_sentencepiece
from kdnas.export.session import Session
from kdnas.store.artifact import Artifact
from kdnas.text.corpus import Corpus

pytestmark = pytest.mark.slow


SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
PARTS = st.sampled_from([*SPECIAL, "a", " a", "the", "file", "é", "ﬁ", "漢", "x" * 40, "🙂", "</", "s>", "."])


@pytest.fixture(scope="session")
def both(roberta_export: Artifact) -> tuple[SentencePieceEncoder, TokenizersEncoder]:
    """The two encoders of one export."""
    folder = roberta_export.path
    return SentencePieceEncoder(folder / SENTENCEPIECE), TokenizersEncoder(folder / TOKENIZER)


def test_an_export_of_a_unigram_model_tokenises_with_sentencepiece(roberta_export: Artifact, corpus: Corpus) -> None:
    texts = corpus.validation.texts
    assert read_settings(roberta_export.path)["encoder"] == SENTENCEPIECE
    assert roberta_export.results["sentencepiece"] == {"compared": len(texts), "differ": 0}
    assert "sentencepiece.model" in (roberta_export.path / "README.md").read_text()
    session = Session(roberta_export.path, threads=1)
    assert isinstance(session.encoder, SentencePieceEncoder)
    theirs = XLMRobertaTokenizerFast.from_pretrained(roberta_export.path)
    long = " ".join(texts[:20])
    for text in [*texts[:50], long, ""]:
        assert session.encode([text]) == [theirs(text, truncation=True, max_length=session.max_seq_len)["input_ids"]]
        assert session.encode([text], "whole") == [theirs(text)["input_ids"]]
    assert len(session.encode([long])[0]) == session.max_seq_len < len(session.encode([long], "whole")[0])


def test_an_export_of_a_wordpiece_model_has_no_sentencepiece_model(encoder_export: Artifact) -> None:
    assert read_settings(encoder_export.path)["encoder"] == TOKENIZER
    assert not (encoder_export.path / SENTENCEPIECE).exists()
    assert isinstance(Session(encoder_export.path, threads=1).encoder, TokenizersEncoder)


@given(st.lists(PARTS, max_size=12).map("".join))
def test_special_tokens_in_texts_give_the_same_ids(
    both: tuple[SentencePieceEncoder, TokenizersEncoder], text: str
) -> None:
    ours, theirs = both
    assert ours.ids([text]) == theirs.ids([text])


def test_batched_ids_equal_single_ids(both: tuple[SentencePieceEncoder, TokenizersEncoder], corpus: Corpus) -> None:
    texts = [*corpus.validation.texts[:THREADED], "a<mask>b", ""]
    for encoder in both:
        assert encoder.ids(texts) == [encoder.ids([text])[0] for text in texts]


def unigram(folder: Path, **changes: object) -> Path:
    """A tokenizer.json of a few pieces, in the format of a converter, with `changes` to its top-level keys."""
    pieces = [*SPECIAL[:4], "\u2581", "a", "b", "\u2581a", "ab", "A"]
    tokenizer = Tokenizer(models.Unigram([(piece, -float(index)) for index, piece in enumerate(pieces)], unk_id=3))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Strip(left=False, right=True), normalizers.Replace(" ", "\u2581")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.add_special_tokens(list(SPECIAL[:4]))
    around = [("<s>", 0), ("</s>", 2)]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=around)
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / TOKENIZER))
    (folder / TOKENIZER).write_text(json.dumps(json.loads((folder / TOKENIZER).read_text()) | changes))
    return folder


@pytest.mark.parametrize(
    "changes",
    [
        {"normalizer": {"type": "Lowercase"}},
        {"normalizer": {"type": "Replace", "pattern": {"String": "a"}, "content": "b"}},
        {"post_processor": None},
        {"pre_tokenizer": {"type": "Whitespace"}},
    ],
)
def test_unsupported_tokenizers_get_no_sentencepiece_model(changes: dict[str, object], tmp_path: Path) -> None:
    assert write_sentencepiece(unigram(tmp_path, **changes), ["a b", "ab a"]) is None
    assert [file.name for file in tmp_path.iterdir()] == [TOKENIZER]


def test_a_damaged_model_is_refused(roberta_export: Artifact, tmp_path: Path) -> None:
    shutil.copy(roberta_export.path / SENTENCEPIECE, tmp_path)
    whole = (tmp_path / SENTENCEPIECE).read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"no model"):
        (tmp_path / SENTENCEPIECE).write_bytes(content)
        with pytest.raises(UsageError, match=r"sentencepiece\.model: cannot be read"):
            read_encoder(tmp_path, sentencepiece=True)
