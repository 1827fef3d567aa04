"""Converts a Unigram tokenizer.json to a SentencePiece model."""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdnas.export.encoder import SENTENCEPIECE, TOKENIZER
from kdnas.export.vocabulary import is_byte


def write_sentencepiece(folder: Path) -> bool:
    """Write `sentencepiece.model` beside `tokenizer.json`; returns False if it cannot be expressed as one."""
    model = sentencepiece_model(json.loads((folder / TOKENIZER).read_text()))
    if model is None:
        return False
    (folder / SENTENCEPIECE).write_bytes(model)
    return True


def sentencepiece_model(description: Mapping[str, Any]) -> bytes | None:
    """A serialised SentencePiece model of a tokenizer.json's content; None if it cannot be expressed as one.

    Pieces and scores are the same; SentencePiece's own rules for spaces replace those of `tokenizers`.
    """
    from sentencepiece import sentencepiece_model_pb2

    schema: Any = sentencepiece_model_pb2  # its classes are created at run time
    model, added = description["model"], {token["id"]: token for token in description.get("added_tokens") or []}
    charsmap = _charsmap(description.get("normalizer"))
    if model.get("type") != "Unigram" or charsmap is None or model.get("unk_id") is None:
        return None
    if set(added) - set(range(len(model["vocab"]))) or any(token["single_word"] for token in added.values()):
        return None
    special = _single(description.get("post_processor"))
    if special is None:
        return None
    kinds = schema.ModelProto.SentencePiece
    proto = schema.ModelProto()
    for number, (piece, score) in enumerate(model["vocab"]):
        kind = kinds.NORMAL
        if number == model["unk_id"]:
            kind = kinds.UNKNOWN
        elif number in added:
            kind = kinds.CONTROL
        elif model.get("byte_fallback") and is_byte(piece):
            kind = kinds.BYTE
        proto.pieces.add(piece=added[number]["content"] if number in added else piece, score=score, type=kind)
    trainer = proto.trainer_spec
    trainer.model_type = schema.TrainerSpec.UNIGRAM
    trainer.vocab_size = len(proto.pieces)
    trainer.byte_fallback = bool(model.get("byte_fallback"))
    trainer.unk_id, trainer.unk_piece = model["unk_id"], proto.pieces[model["unk_id"]].piece
    (trainer.bos_id, trainer.bos_piece), (trainer.eos_id, trainer.eos_piece) = special
    trainer.pad_id = -1
    proto.normalizer_spec.precompiled_charsmap = charsmap
    return bytes(proto.SerializeToString())


def _charsmap(normalizer: Mapping[str, Any] | None) -> bytes | None:
    """The character map of a normaliser whose other steps are only rules for spaces; None if it has more."""
    if normalizer is None:
        return b""
    steps = normalizer["normalizers"] if normalizer["type"] == "Sequence" else [normalizer]
    maps = [step["precompiled_charsmap"] for step in steps if step["type"] == "Precompiled"]
    others = {step["type"] for step in steps} - {"Precompiled", "Replace", "Strip"}
    return None if others or len(maps) > 1 else base64.b64decode(maps[0]) if maps else b""


def _single(post_processor: Mapping[str, Any] | None) -> list[tuple[int, str]] | None:
    """Id and name of the special tokens before and after a single text; None unless there is exactly one of each."""
    if post_processor is None or post_processor["type"] != "TemplateProcessing":
        return None
    parts = [part.get("SpecialToken", {}).get("id") for part in post_processor["single"]]
    if len(parts) != 3 or parts[1] is not None or None in (parts[0], parts[2]):
        return None
    ids = [post_processor["special_tokens"][name]["ids"] for name in (parts[0], parts[2])]
    return [(ids[0][0], parts[0]), (ids[1][0], parts[2])] if all(len(found) == 1 for found in ids) else None
