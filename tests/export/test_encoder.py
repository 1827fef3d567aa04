"""A faster library replaces `tokenizers` only if both give the same ids: tokie, or for some Unigram tokenizers SentencePiece."""

import gzip
import json
import re
import shutil
import unicodedata
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertTokenizerFast, XLMRobertaTokenizerFast

from kdnas.errors import UsageError
from kdnas.export.characters import Characters
from kdnas.export.encoder import (
    SENTENCEPIECE,
    THREADED,
    TOKENIZER,
    TOKIE,
    TOKIE_DETAILS,
    Encoder,
    SentencePieceEncoder,
    TokenizersEncoder,
    TokieEncoder,
    read_encoder,
)
from kdnas.export.fast_tokenizer import PROBES, write_fast_tokenizer
from kdnas.export.folder import read_settings
from kdnas.export.session import Session
from kdnas.store.artifact import Artifact
from kdnas.text.corpus import Corpus

pytestmark = pytest.mark.slow


SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>", "[CLS]", "[SEP]", "[MASK]")
PARTS = st.sampled_from([*SPECIAL, "a", " a", "the", "file", "é", "ﬁ", "漢", "x" * 40, "🙂", "</", "s>", "."])


@pytest.fixture(scope="session", params=["roberta_export", "encoder_export"])
def both(request: pytest.FixtureRequest) -> tuple[Encoder, Encoder]:
    """The fast encoder and that of `tokenizers`: of a Unigram and of a WordPiece tokenizer."""
    folder = request.getfixturevalue(request.param).path
    return read_encoder(folder, read_settings(folder)["encoder"]), TokenizersEncoder(folder / TOKENIZER)


def test_an_export_of_a_unigram_model_tokenises_with_sentencepiece(roberta_export: Artifact, corpus: Corpus) -> None:
    texts = corpus.validation.texts
    assert read_settings(roberta_export.path)["encoder"] == SENTENCEPIECE
    assert roberta_export.results["tokenizer"] == {"file": SENTENCEPIECE, "compared": len(texts), "differ": 0}
    assert "sentencepiece.model" in (roberta_export.path / "README.md").read_text()
    session = Session(roberta_export.path, threads=1)
    assert isinstance(session.encoder, SentencePieceEncoder)
    theirs = XLMRobertaTokenizerFast.from_pretrained(roberta_export.path)
    long = " ".join(texts[:20])
    for text in [*texts[:50], long, ""]:
        assert session.encode([text]) == [theirs(text, truncation=True, max_length=session.max_seq_len)["input_ids"]]
        assert session.encode([text], "whole") == [theirs(text)["input_ids"]]
    assert len(session.encode([long])[0]) == session.max_seq_len < len(session.encode([long], "whole")[0])


def test_an_export_of_a_wordpiece_model_tokenises_with_tokie(encoder_export: Artifact, corpus: Corpus) -> None:
    texts = corpus.validation.texts
    assert read_settings(encoder_export.path)["encoder"] == TOKIE
    assert not (encoder_export.path / SENTENCEPIECE).exists()
    assert encoder_export.results["tokenizer"] == {"file": TOKIE, "compared": len(texts), "differ": 0}
    assert "`tokenizer.tkz`, which gives the same ids" in (encoder_export.path / "README.md").read_text()
    session = Session(encoder_export.path, threads=1)
    assert isinstance(session.encoder, TokieEncoder)
    theirs = BertTokenizerFast.from_pretrained(encoder_export.path)
    long = " ".join(texts[:60])
    for text in [*texts[:50], long, ""]:
        assert session.encode([text]) == [theirs(text, truncation=True, max_length=session.max_seq_len)["input_ids"]]
    assert len(session.encode([long])[0]) == session.max_seq_len < len(session.encode([long], "whole")[0])


def test_texts_in_many_languages_give_the_same_ids(both: tuple[Encoder, Encoder], shared_data: Path) -> None:
    ours, theirs = both
    texts = [*PROBES]
    for file in sorted((shared_data / "text").glob("*.jsonl.gz")):
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            texts += [json.loads(line)["text"] for line in islice(lines, 0, 20_000, 10)]
    with gzip.open(next((shared_data / "hap").glob("*/*.jsonl.gz")), "rt", encoding="utf-8") as lines:
        texts += [text for line in islice(lines, 2000) for text in json.loads(line).values() if isinstance(text, str)]
    assert len(texts) > 5000
    assert ours.ids(texts) == theirs.ids(texts)


def test_every_character_gives_the_same_ids(encoder_export: Artifact) -> None:
    """Also those on which the two libraries differ: such a text is left to `tokenizers`."""
    ours, theirs = TokieEncoder(encoder_export.path / TOKIE), TokenizersEncoder(encoder_export.path / TOKENIZER)
    points = [chr(point) for point in range(1, 0x30000) if not 0xD800 <= point < 0xE000]
    texts = [f"a {character} b{character}c" for character in points]
    assert ours.ids(texts) == theirs.ids(texts)
    others = json.loads((encoder_export.path / TOKIE_DETAILS).read_text())["other_characters"]
    assert 500 < len(others) < 2000
    assert ours.ids(["plain text", "x\x7fy"]) == theirs.ids(["plain text", "x\x7fy"])


@given(st.lists(PARTS, max_size=12).map("".join))
def test_special_tokens_in_texts_give_the_same_ids(both: tuple[Encoder, Encoder], text: str) -> None:
    ours, theirs = both
    assert ours.ids([text]) == theirs.ids([text])


def test_batched_ids_equal_single_ids(both: tuple[Encoder, Encoder], corpus: Corpus) -> None:
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
def test_sentencepiece_is_not_used_for_what_it_cannot_express(changes: dict[str, object], tmp_path: Path) -> None:
    found = write_fast_tokenizer(unigram(tmp_path, **changes), ["a b", "ab a"])
    assert found in (None, {"file": TOKIE, "compared": 2, "differ": 0})
    files = {file.name for file in tmp_path.iterdir()}
    assert files == ({TOKENIZER, TOKIE, TOKIE_DETAILS} if found else {TOKENIZER})


def test_a_form_with_other_ids_is_removed(
    encoder_export: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(encoder_export.path / TOKENIZER, tmp_path)
    monkeypatch.setattr(TokieEncoder, "_mended", lambda *_: [1])
    assert write_fast_tokenizer(tmp_path, ["some text", "another"]) is None
    assert [file.name for file in tmp_path.iterdir()] == [TOKENIZER]


@pytest.mark.parametrize(("fixture", "name"), [("roberta_export", SENTENCEPIECE), ("encoder_export", TOKIE)])
def test_a_damaged_model_is_refused(request: pytest.FixtureRequest, tmp_path: Path, fixture: str, name: str) -> None:
    whole = (request.getfixturevalue(fixture).path / name).read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"no model"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UsageError, match=f"{re.escape(name)}: cannot be read"):
            read_encoder(tmp_path, name)
    with pytest.raises(UsageError, match=r"other\.bin: cannot be read"):
        read_encoder(tmp_path, "other.bin")


@given(st.text(max_size=40), st.sets(st.characters(exclude_categories=["Cs"]), max_size=5))
def test_characters_are_found_wherever_they_are(text: str, others: set[str]) -> None:
    found = Characters("".join(others)).occur_in(text)
    rare = {one for one in text if unicodedata.category(one) in ("Cn", "Co", "Cc") and not one.isspace()}
    assert found == bool((others | rare) & set(text))
