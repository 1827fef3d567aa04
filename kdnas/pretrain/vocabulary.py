"""A Unigram tokenizer (arXiv 1808.06226) as in XLM-R, trained with SentencePiece on sentences of all languages."""

import io
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kdnas.errors import UsageError
from kdnas.models.teacher import Teacher
from kdnas.pretrain.options import PretrainOptions
from kdnas.store.artifact import build
from kdnas.store.digest import file_sha256
from kdnas.store.host import physical_cores
from kdnas.store.progress import stage
from kdnas.text.corpus import source_digest, split_of, unique_rows
from kdnas.text.readers import TextOptions, TextRow, read_rows

ADDED = 2  # tokens that XLM-R's tokenizer adds to its SentencePiece model: padding and mask
PAD_ID = 1  # in XLM-R's order: <s>, <pad>, </s>, <unk>
COVERAGE = 0.9995  # fraction of the characters that the vocabulary covers; the rarest are unknown
NEEDED_BYTES = 200_000_000


def build_tokenizer(home: Path, source: str, text: TextOptions, options: PretrainOptions) -> Teacher:
    """The tokenizer of this corpus, trained or cached, as a teacher without weights.

    Args:
        home: root folder of all artifacts.
        source: corpus, as in `kdnas.text.corpus.build_corpus`.
        text: how to read the corpus; the validation split is not used.
        options: vocabulary size, number of sentences, language sampling and seed.

    Raises:
        UsageError: the corpus is missing, empty, or too small for the vocabulary.
    """
    names = ("vocabulary", "tokenizer_sentences", "language_power", "seed")
    config = {"source": source, "text": text.deciding, **{name: getattr(options, name) for name in names}}
    inputs = {"source": source_digest(source)}
    label = f"unigram-{options.vocabulary}"

    def work(folder: Path) -> dict[str, Any]:
        return _train(folder, source, text, options)

    artifact = build(home, "tokenizer", label, config, inputs, work, NEEDED_BYTES)
    digest = file_sha256(artifact.path / "tokenizer.json")
    return Teacher(str(artifact.path), artifact.path, {"pad_token_id": PAD_ID}, digest)


def _train(folder: Path, source: str, text: TextOptions, options: PretrainOptions) -> dict[str, Any]:
    from transformers import XLMRobertaTokenizerFast

    with stage("tokenizer: languages", None):
        counts = Counter(row.language for row in _training_rows(source, text))
    wanted = balanced_counts(counts, options.tokenizer_sentences, options.language_power)
    rng = np.random.default_rng([options.seed, 3])
    with stage("tokenizer: train", None):
        chosen = chosen_rows(_training_rows(source, text), counts, wanted, rng)
        model = unigram_model((row.text for row in chosen), options.vocabulary, source)
    file = folder / "sentencepiece.bpe.model"
    file.write_bytes(model)
    XLMRobertaTokenizerFast(str(file), model_max_length=512).save_pretrained(folder)
    return {"sentences": sum(wanted.values()), "languages": len(counts), "vocabulary": options.vocabulary}


def _training_rows(source: str, text: TextOptions) -> Iterator[TextRow]:
    rows = unique_rows(read_rows(source, text), source, text.max_sentences)
    return (row for row in rows if split_of(row, text.validation_fraction) == "train")


def balanced_counts(counts: Counter[str], total: int, power: float | None) -> dict[str, int]:
    """Number of sentences to take from each language: proportional to n^power for n sentences, but at most n.

    Args:
        counts: number of sentences of each language.
        total: maximum number of sentences in total.
        power: exponent; None is the same as 1.
    """
    weights = {language: count ** (1.0 if power is None else power) for language, count in counts.items()}
    scale = total / sum(weights.values())
    return {language: min(counts[language], round(scale * weight)) for language, weight in weights.items()}


def chosen_rows(
    rows: Iterable[TextRow], counts: Counter[str], wanted: dict[str, int], rng: np.random.Generator
) -> Iterator[TextRow]:
    """A uniform random sample with the wanted number of rows per language, in corpus order."""
    coming, missing = Counter(counts), Counter(wanted)
    for row in rows:
        if rng.random() * coming[row.language] < missing[row.language]:
            missing[row.language] -= 1
            yield row
        coming[row.language] -= 1


def unigram_model(texts: Iterator[str], vocabulary: int, source: str) -> bytes:
    """A SentencePiece model for `vocabulary` tokens, including the two that XLM-R's tokenizer adds.

    Raises:
        UsageError: the texts have too few different pieces for the vocabulary.
    """
    import sentencepiece

    written = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=texts,
            model_writer=written,
            model_type="unigram",
            vocab_size=vocabulary - ADDED,
            character_coverage=COVERAGE,
            num_threads=physical_cores(),
            minloglevel=2,
        )
    except RuntimeError as error:
        raise UsageError(
            f"corpus '{source}': no vocabulary of {vocabulary} tokens can be trained on it ({' '.join(str(error).split())}); "
            "give another --vocabulary, or more text"
        ) from error
    return written.getvalue()
