"""The tokenizer of an E5S1 file: the character map, and the ids of XLM-R's own tokenizer."""

import io
import json
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, normalizers

from kdnas.export.encoder import (
    SENTENCEPIECE,
    THREADED,
    TOKENIZER,
    TOKIE,
    TOKIE_DETAILS,
    SentencePieceEncoder,
    TokenizersEncoder,
    read_encoder,
)
from kdnas.export.fast_tokenizer import PROBES, write_fast_tokenizer
from kdnas.export.sentencepiece_form import write_sentencepiece
from kdnas.models.pooling import pooling_of
from kdnas.models.teacher import load_tokenizer
from kdnas.teachers.charsmap import precompiled, with_compositions
from kdnas.teachers.e5s1 import Pieces
from kdnas.teachers.unigram import write_tokenizer
from kdnas.text.joining import read_joining

from .package_fixture import CHARACTERS, PIECES, SCORES

TINY = Pieces(PIECES, np.array(SCORES, np.float32), 0, 2, 1, 3)
POINTS = st.characters(exclude_characters="\0", exclude_categories=("Cs",))


def normalised(normalizer: Any, character: str) -> str:
    return str(normalizer.normalize_str(character))


def test_every_character_becomes_what_the_map_says() -> None:
    normalizer = normalizers.Precompiled(precompiled(CHARACTERS))
    for point in [*range(1, 0xD800), *range(0xE000, 0x20000)]:
        assert normalised(normalizer, chr(point)) == CHARACTERS.get(chr(point), chr(point))


@given(st.dictionaries(POINTS, st.text(POINTS, max_size=4), min_size=1, max_size=300))
def test_any_character_map(replacements: dict[str, str]) -> None:
    normalizer = normalizers.Precompiled(precompiled(replacements))
    for old, new in replacements.items():
        assert normalised(normalizer, old) == new
        following = chr(min(ord(old) + 1, 0x10FFFF))
        if following not in replacements and not unicodedata.category(following).startswith("C"):
            assert normalised(normalizer, following) == following


@pytest.mark.slow
def test_large_map_of_all_compatibility_characters() -> None:
    """The kind and size of XLM-R's own map: NFKC of each code point."""
    points = [chr(point) for point in range(1, 0x30000) if not 0xD800 <= point < 0xE000]
    replacements = {point: new for point in points if (new := unicodedata.normalize("NFKC", point)) != point}
    assert len(replacements) > 4000
    written = precompiled(replacements)
    normalizer = normalizers.Precompiled(written)
    for point in points:
        assert normalised(normalizer, point) == replacements.get(point, point)
    assert len(written) < 10 * 2**20


def test_letters_with_marks_are_composed_as_by_xlmr() -> None:
    """A key of several characters: XLM-R's map has the decomposed letters, in NFKC."""
    characters = {"\u017f": "s", "\u1e9b": "\u1e61"}  # a long s, alone and with a dot
    normalizer = normalizers.Precompiled(precompiled(with_compositions(characters)))
    assert normalised(normalizer, "e\u0301 o\u0308 \u03b1\u0301") == "\u00e9 \u00f6 \u03ac"
    assert normalised(normalizer, "\u017f \u1e9b") == "s \u1e61"
    assert normalised(normalizer, "\u0301e \u212b") == "\u0301e \u212b"  # no letter before it; decomposed for good


def test_tokenizer_files_are_those_of_xlmr(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, TINY, CHARACTERS, 40)
    tokenizer = load_tokenizer(tmp_path)
    assert type(tokenizer).__name__ == "XLMRobertaTokenizerFast"
    assert tokenizer.convert_ids_to_tokens(range(len(PIECES))) == PIECES
    assert (tokenizer.bos_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id) == (
        0,
        0,
        2,
        1,
    )
    assert (tokenizer.mask_token_id, tokenizer.unk_token_id, len(tokenizer)) == (len(PIECES) - 1, 3, len(PIECES))
    assert tokenizer.model_max_length == 40
    single, pair = tokenizer("a"), tokenizer("a", "b", return_token_type_ids=True)
    a, b = PIECES.index("\u2581a"), PIECES.index("\u2581b")
    assert single["input_ids"] == [0, a, 2]
    assert pair["input_ids"] == [0, a, 2, 2, b, 2]
    assert not any(pair["token_type_ids"])
    joining = read_joining(tmp_path)
    assert (joining.start, joining.between, joining.end, joining.text_types) == ((0,), (2, 2), (2,), (0, 0))
    mask = tokenizer.mask_token_id
    assert tokenizer("a <mask> b")["input_ids"] == [0, a, mask, b, 2]  # the mask takes the space before it
    assert tokenizer.decode(tokenizer("a b the")["input_ids"], skip_special_tokens=True) == "a b the"
    assert pooling_of(tmp_path) == "mean"


def test_spaces_are_collapsed_and_words_marked(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, TINY, CHARACTERS, 40)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    plain = tokenizer.encode("a b").ids
    for text in (" a b", "a  b", "a b ", "\ta\u3000b\u00a0", "\uff41 b", "a\x07 b"):
        assert tokenizer.encode(text).ids == plain, text


@pytest.fixture(scope="module")
def sentences(corpus_file: Path) -> list[str]:
    texts = [json.loads(line)["text"] for line in corpus_file.open()][:3000]
    return [
        *texts,
        "Übergrößenträger naïve façade",
        "漢字 かな 交じり",
        "ภาษาไทย",
        "हिन्दी में",
        "العربية",
        "Ｆｕｌｌ ｗｉｄｔｈ ﬁne ½",
    ]


@pytest.mark.slow
def test_ids_are_those_of_transformers_xlmr_tokenizer(sentences: list[str], tmp_path: Path) -> None:
    """From a SentencePiece model, transformers makes XLM-R's tokenizer; from its pieces and characters, we make the same."""
    import sentencepiece
    from transformers import XLMRobertaTokenizerFast

    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_writer=written, model_type="unigram", vocab_size=2000, minloglevel=2
    )
    file = tmp_path / "sentencepiece.bpe.model"
    file.write_bytes(written.getvalue())
    theirs = XLMRobertaTokenizerFast(str(file), model_max_length=512)
    processor = sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())
    normal = range(3, len(processor))
    pieces = ["<s>", "<pad>", "</s>", "<unk>", *map(processor.id_to_piece, normal), "<mask>"]
    scores = np.array([0, 0, 0, 0, *map(processor.get_score, normal), 0], np.float32)
    normalizer = theirs.backend_tokenizer.normalizer[0]
    points = [chr(point) for point in range(1, 0x30000) if not 0xD800 <= point < 0xE000]
    characters = {point: new for point in points if (new := normalised(normalizer, point)) != point}
    write_tokenizer(tmp_path, Pieces(pieces, scores, 0, 2, 1, 3), characters, 512)
    ours = load_tokenizer(tmp_path)
    texts = [*PROBES, *sentences, "a<s>b", "<mask>", "a <mask>."]
    assert ours(texts)["input_ids"] == theirs(texts)["input_ids"]
    # An export tokenises with tokie, which omits the token after a text and gives blank texts the mark of a space.
    assert write_fast_tokenizer(tmp_path, sentences) == {"file": TOKIE, "compared": len(sentences), "differ": 0}
    fast, whole = read_encoder(tmp_path, TOKIE), TokenizersEncoder(tmp_path / TOKENIZER)
    assert (fast.prefix, fast.suffix) == (whole.prefix, whole.suffix) == ([0], [2])
    blank = ["", " ", "\u3000", "\t \n"]
    assert fast.ids(blank) == whole.ids(blank) == [[], [], [], []]
    assert json.loads((tmp_path / TOKIE_DETAILS).read_text())["other_characters"] is None
    rare = ["a", "\ue000", "b\U000f0000 a", "\x07", "c\u0378"] * THREADED
    assert fast.ids(rare) == whole.ids(rare)
    # SentencePiece reads the same map; it is stricter than tokenizers about its form.
    assert write_sentencepiece(tmp_path)
    assert SentencePieceEncoder(tmp_path / SENTENCEPIECE).ids(texts) == TokenizersEncoder(tmp_path / TOKENIZER).ids(
        texts
    )
