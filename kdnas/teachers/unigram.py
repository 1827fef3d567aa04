"""Tokenizer files of a Unigram vocabulary in XLM-R's layout, as the published XLM-R tokenizer has them."""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdnas.errors import KdnasError
from kdnas.store.json_files import write_json
from kdnas.teachers.charsmap import precompiled, with_compositions
from kdnas.teachers.e5s1 import Pieces

SPACE = "\u2581"  # marks the begin of a word
BOS, PAD, EOS, UNK, MASK = "<s>", "<pad>", "</s>", "<unk>", "<mask>"
METASPACE = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "always", "split": True}


def write_tokenizer(folder: Path, vocabulary: Pieces, characters: Mapping[str, str], max_seq_len: int) -> None:
    """Write `tokenizer.json`, `tokenizer_config.json` and `special_tokens_map.json`.

    Args:
        folder: folder to write to.
        vocabulary: pieces, scores and special tokens.
        characters: replacement of each character that the normaliser changes.
        max_seq_len: number of tokens to which longer texts are truncated.

    Raises:
        KdnasError: the special tokens are not those of XLM-R.
    """
    added = added_tokens(vocabulary)
    (folder / "tokenizer.json").write_text(
        json.dumps(description(vocabulary, added, characters), ensure_ascii=False, separators=(",", ":")),
        encoding="utf-8",
    )
    plain = {"bos_token": BOS, "cls_token": BOS, "eos_token": EOS, "sep_token": EOS, "pad_token": PAD, "unk_token": UNK}
    mask = {key: value for key, value in added[-1].items() if key not in ("id", "special")}
    write_json(folder / "special_tokens_map.json", {**plain, "mask_token": mask})
    decoder = {str(token["id"]): {key: value for key, value in token.items() if key != "id"} for token in added}
    write_json(
        folder / "tokenizer_config.json",
        {
            "added_tokens_decoder": decoder,
            **plain,
            "mask_token": MASK,
            "clean_up_tokenization_spaces": False,
            "model_max_length": max_seq_len,
            "tokenizer_class": "XLMRobertaTokenizer",
        },
    )


def added_tokens(vocabulary: Pieces) -> list[dict[str, Any]]:
    """The special tokens by id. In XLM-R's layout they are the first four pieces and, for the mask, the last one.

    Raises:
        KdnasError: another piece stands there.
    """
    last = len(vocabulary.pieces) - 1
    wanted = {vocabulary.bos: BOS, vocabulary.pad: PAD, vocabulary.eos: EOS, vocabulary.unk: UNK, last: MASK}
    found = {number: vocabulary.pieces[number] for number in wanted}
    if list(wanted) != [0, 1, 2, 3, last] or found != wanted:
        raise KdnasError(
            f"tokenizer: special tokens {found}; XLM-R's layout has {BOS}, {PAD}, {EOS}, {UNK} first and {MASK} last"
        )
    flags = {"single_word": False, "rstrip": False, "normalized": False, "special": True}
    return [{"id": number, "content": text, "lstrip": text == MASK, **flags} for number, text in wanted.items()]


def description(vocabulary: Pieces, added: list[dict[str, Any]], characters: Mapping[str, str]) -> dict[str, Any]:
    """Content of `tokenizer.json`.

    Words are split at white space after the character map, so that repeated spaces and those at the ends vanish, and each word
    begins with the mark of a space, as SentencePiece does. Texts become `<s> A </s>`,
    pairs `<s> A </s> </s> B </s>`, all of type 0.
    """
    ids = {BOS: vocabulary.bos, EOS: vocabulary.eos}
    charsmap = base64.b64encode(precompiled(with_compositions(characters))).decode()
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": charsmap},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, METASPACE]},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": _template(BOS, "A", EOS),
            "pair": _template(BOS, "A", EOS, EOS, "B", EOS),
            "special_tokens": {name: {"id": name, "ids": [number], "tokens": [name]} for name, number in ids.items()},
        },
        "decoder": METASPACE,
        "model": {
            "type": "Unigram",
            "unk_id": vocabulary.unk,
            "vocab": [list(pair) for pair in zip(vocabulary.pieces, vocabulary.scores.tolist(), strict=True)],
            "byte_fallback": False,
        },
    }


def _template(*parts: str) -> list[dict[str, Any]]:
    kinds = {"A": "Sequence", "B": "Sequence"}
    return [{kinds.get(part, "SpecialToken"): {"id": part, "type_id": 0}} for part in parts]
