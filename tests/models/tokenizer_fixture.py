"""A small tokenizer of each family, trained on given texts and saved as transformers saves it."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .family_fixture import POSITIONS, TINY

VOCABULARY = 2000
ROBERTA_SPECIALS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
WORDPIECE_SPECIALS = {
    "bert": ("BertTokenizerFast", ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]),
    "distilbert": ("DistilBertTokenizerFast", ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]),
    "mpnet": ("MPNetTokenizerFast", ["<s>", "<pad>", "</s>", "[UNK]", "<mask>"]),
}


def family_tokenizer(model_type: str, texts: Sequence[str], folder: Path) -> Path:
    """Train the kind of tokenizer that a family has, and save it with a tiny configuration.

    Byte-level BPE for RoBERTa, a SentencePiece Unigram model for XLM-RoBERTa, WordPiece for the others.

    Args:
        model_type: a key of `TINY`.
        texts: the texts to train on.
        folder: folder to write to.
    """
    from transformers import AutoConfig

    folder.mkdir(parents=True, exist_ok=True)
    make = {"roberta": _byte_level, "xlm-roberta": _unigram}.get(model_type)
    tokenizer = make(texts, folder) if make else _wordpiece(model_type, texts, folder)
    tokenizer.save_pretrained(folder)
    sizes = {"vocab_size": len(tokenizer), "max_position_embeddings": POSITIONS}
    AutoConfig.for_model(model_type, **{**TINY[model_type], **sizes}).save_pretrained(folder)
    return folder


def _byte_level(texts: Sequence[str], folder: Path) -> Any:
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaTokenizerFast

    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(texts, vocab_size=VOCABULARY, special_tokens=ROBERTA_SPECIALS, show_progress=False)
    return RobertaTokenizerFast(*trained.save_model(str(folder)))


def _unigram(texts: Sequence[str], folder: Path) -> Any:
    import sentencepiece
    from transformers import XLMRobertaTokenizerFast

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        vocab_size=2 * VOCABULARY,
        hard_vocab_limit=False,
        character_coverage=0.999,
        minloglevel=2,
    )
    file = folder / "sentencepiece.bpe.model"
    file.write_bytes(model.getvalue())
    return XLMRobertaTokenizerFast(str(file))


def _wordpiece(model_type: str, texts: Sequence[str], folder: Path) -> Any:
    import transformers
    from tokenizers import BertWordPieceTokenizer

    name, specials = WORDPIECE_SPECIALS[model_type]
    trained = BertWordPieceTokenizer(unk_token="[UNK]", lowercase=True)
    trained.train_from_iterator(texts, vocab_size=VOCABULARY, special_tokens=specials, show_progress=False)
    (file,) = trained.save_model(str(folder))
    return getattr(transformers, name)(file)
