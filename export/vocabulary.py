"""Vocabulary trimming: cuts tokenizer and embeddings to the tokens of a corpus, with the same outputs on covered text.

A multilingual student is mostly word embeddings (250,002 rows of 576 are 94 % of `4,12,576,768`), and text in a few languages
uses a tenth of them. Both kinds of tokenizer choose only among the pieces of their vocabulary: WordPiece takes the longest
match, Unigram the path with the best score. So if all pieces of a text are kept, its tokens stay the same.
"""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from kdnas.errors import BoundError, UsageError
from kdnas.export.checkpoint import Checkpoint, copy_description, load_model, open_checkpoint
from kdnas.export.folder import read_tokenizer
from kdnas.models.pooling import write_modules
from kdnas.store.json_files import write_json

KINDS = ("WordPiece", "Unigram")
REPORT = "vocabulary.json"
CHUNK = 4096
UNCUT = 1_000_000  # tokens per text, so that none is cut
# Prints the memory growth in bytes of a process that loads a tokenizer.
GROWTH = """
import sys, psutil, tokenizers
process = psutil.Process()
before = process.memory_info().rss
tokenizer = tokenizers.Tokenizer.from_file(sys.argv[1])
print(process.memory_info().rss - before)
"""


def trim(
    checkpoint: Checkpoint, texts: Sequence[str], held_out: Sequence[str], folder: Path, most: int | None = None
) -> Checkpoint:
    """Write the model with a trimmed vocabulary into `folder`; a finished one is reused.

    Args:
        checkpoint: the whole model.
        texts: texts that define the vocabulary; all their pieces, those of the model's prompts and all single
            characters are kept.
        held_out: other texts, to measure the coverage.
        folder: gets weights, configuration and tokenizer, and finally a report, `vocabulary.json`.
        most: number of most frequent pieces to keep; rarer words are split into smaller pieces. None keeps all.

    Raises:
        UsageError: the tokenizer is neither WordPiece nor Unigram, or has ids without embedding rows.
        BoundError: the tokens of a covered held-out text have changed.
    """
    if not (folder / REPORT).is_file():
        scratch = folder / "vocabulary.scratch"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        copy_description(checkpoint, scratch)
        tokenizer = read_tokenizer(scratch / "tokenizer.json", UNCUT)
        description = json.loads((scratch / "tokenizer.json").read_text())
        tokenizer_mb_before = tokenizer_mb(scratch / "tokenizer.json")
        prompts = used_ids(tokenizer, checkpoint.prompts.texts.values())
        kept = kept_ids(description, used_ids(tokenizer, texts, most) | prompts)
        rows = int(checkpoint.config["vocab_size"])
        if kept[-1] >= rows:
            raise UsageError(
                f"model '{checkpoint.path}': its tokenizer has id {kept[-1]}, but its embeddings have only {rows} rows; "
                "give the tokenizer that it was trained with"
            )
        _write_model(checkpoint, kept, scratch)
        _write_tokenizer(description, kept, scratch)
        covered = covered_fraction(tokenizer, read_tokenizer(scratch / "tokenizer.json", UNCUT), held_out, kept)
        row_mb = 4e-6 * int(checkpoint.config["hidden_size"])
        report = {
            "tokens_before": rows,
            "tokens_after": len(kept),
            "embeddings_mb_before": round(rows * row_mb, 2),
            "embeddings_mb_after": round(len(kept) * row_mb, 2),
            "tokenizer_mb_before": tokenizer_mb_before,
            "tokenizer_mb_after": tokenizer_mb(scratch / "tokenizer.json"),
            **covered,
        }
        for file in scratch.iterdir():
            os.replace(file, folder / file.name)
        scratch.rmdir()
        if checkpoint.task == "feature-extraction":  # the cut model is pooled like the whole one
            hidden = int(checkpoint.settings["hidden"])
            write_modules(folder, hidden, checkpoint.max_seq_len, checkpoint.pooling)
        write_json(folder / REPORT, report)
    return open_checkpoint(str(folder))


def cut_of(report: Mapping[str, float]) -> str:
    """Summary of the cut in one line.

    Args:
        report: the content of `vocabulary.json`.
    """
    return (
        f"the vocabulary is cut from {report['tokens_before']:,} to {report['tokens_after']:,} tokens (embeddings from "
        f"{report['embeddings_mb_before']:.1f} to {report['embeddings_mb_after']:.1f} MB); "
        f"{100 * report['held_out_texts_covered']:.1f} % of the held-out texts keep their tokens"
    )


def tokenizer_mb(file: Path) -> float:
    """Resident memory of a tokenizer in MB, measured in a separate process."""
    child = subprocess.run([sys.executable, "-c", GROWTH, str(file)], capture_output=True, text=True, check=True)
    return round(int(child.stdout) / 1e6, 2)


def used_ids(tokenizer: Any, texts: Iterable[str], most: int | None = None) -> set[int]:
    """Ids of all pieces of the texts, or of the `most` most frequent ones; ties go to the smaller id."""
    found: Counter[int] = Counter()
    for chunk in _chunks(texts):
        for encoding in tokenizer.encode_batch_fast(chunk):
            found.update(encoding.ids)
    return set(sorted(found, key=lambda number: (-found[number], number))[:most])


def kept_ids(description: Mapping[str, Any], used: Iterable[int]) -> list[int]:
    """Ids to keep, ascending: those used, all added tokens, all single characters, and those that the algorithm needs.

    Args:
        description: content of tokenizer.json.
        used: ids that the texts use.

    Raises:
        UsageError: the tokenizer is neither WordPiece nor Unigram.
    """
    model = description["model"]
    kind = model.get("type")
    kept = set(used) | {int(token["id"]) for token in description.get("added_tokens") or []}
    if kind == "WordPiece":
        prefix = model["continuing_subword_prefix"]
        kept |= {number for token, number in model["vocab"].items() if len(token.removeprefix(prefix)) == 1}
        kept.add(model["vocab"][model["unk_token"]])
    elif kind == "Unigram":
        kept |= {number for number, (token, _) in enumerate(model["vocab"]) if len(token) == 1 or is_byte(token)}
        # The score of an unknown character depends on the minimum score of the vocabulary.
        kept.add(min(range(len(model["vocab"])), key=lambda number: model["vocab"][number][1]))
        kept |= {model["unk_id"]} - {None}
    else:
        raise UsageError(
            f"vocabulary: cannot trim a {kind} tokenizer, only {' and '.join(KINDS)}; give --vocabulary whole"
        )
    return sorted(kept)


def covered_fraction(whole: Any, trimmed: Any, texts: Sequence[str], kept: Sequence[int]) -> dict[str, float]:
    """Fraction of the texts' tokens that are kept, and fraction of covered texts: those with only kept tokens.

    Args:
        whole: the tokenizer before trimming.
        trimmed: the tokenizer after trimming.
        texts: N texts.
        kept: old ids to keep, ascending.

    Raises:
        BoundError: the tokens of a covered text have changed.
    """
    new = np.full(max(whole.get_vocab_size(), kept[-1] + 1), -1, dtype=np.int64)
    new[list(kept)] = np.arange(len(kept))
    tokens = covered_tokens = covered_texts = 0
    for chunk in _chunks(texts):
        for text, before, after in zip(
            chunk, whole.encode_batch_fast(chunk), trimmed.encode_batch_fast(chunk), strict=True
        ):
            expected = new[before.ids]
            covered = bool((expected >= 0).all())
            if covered and expected.tolist() != after.ids:
                raise BoundError(
                    f"vocabulary: {text!r:.80} is tokenised differently after trimming; give --vocabulary whole"
                )
            tokens, covered_tokens = tokens + len(expected), covered_tokens + int((expected >= 0).sum())
            covered_texts += covered
    return {
        "held_out_tokens_covered": round(covered_tokens / max(1, tokens), 6),
        "held_out_texts_covered": round(covered_texts / max(1, len(texts)), 6),
    }


def renumbered(description: Mapping[str, Any], kept: Sequence[int]) -> dict[str, Any]:
    """Content of tokenizer.json with only the kept pieces, numbered in their old order.

    Args:
        description: content of tokenizer.json.
        kept: old ids to keep, ascending.
    """
    new = {old: number for number, old in enumerate(kept)}
    result: dict[str, Any] = json.loads(json.dumps(description))
    model = result["model"]
    if model["type"] == "WordPiece":
        model["vocab"] = {token: new[old] for token, old in model["vocab"].items() if old in new}
    else:
        model["vocab"] = [piece for old, piece in enumerate(model["vocab"]) if old in new]
        model["unk_id"] = new.get(model["unk_id"])
    for token in result.get("added_tokens") or []:
        token["id"] = new[token["id"]]
    if result.get("padding"):
        result["padding"]["pad_id"] = new[result["padding"]["pad_id"]]
    _renumber_processor(result.get("post_processor"), new)
    return result


def _renumber_processor(processor: dict[str, Any] | None, new: Mapping[int, int]) -> None:
    """Renumber the special tokens of a post-processor, in place."""
    if not processor:
        return
    for inner in processor.get("processors") or []:
        _renumber_processor(inner, new)
    for name in ("sep", "cls"):
        if name in processor:
            processor[name][1] = new[processor[name][1]]
    special = processor.get("special_tokens")
    for token in special.values() if isinstance(special, dict) else []:
        token["ids"] = [new[old] for old in token["ids"]]


def _write_tokenizer(description: Mapping[str, Any], kept: Sequence[int], folder: Path) -> None:
    text = json.dumps(renumbered(description, kept), ensure_ascii=False)
    (folder / "tokenizer.json").write_text(text)
    file = folder / "tokenizer_config.json"
    if file.is_file():
        new = {str(old): str(number) for number, old in enumerate(kept)}
        settings = json.loads(file.read_text())
        if "added_tokens_decoder" in settings:
            decoder = settings["added_tokens_decoder"]
            settings["added_tokens_decoder"] = {new[old]: token for old, token in decoder.items() if old in new}
        write_json(file, settings)


def _write_model(checkpoint: Checkpoint, kept: Sequence[int], folder: Path) -> None:
    """Weights and configuration with the kept rows of the word embeddings."""
    import torch

    model = load_model(checkpoint)
    whole = model.get_input_embeddings()
    new = {old: number for number, old in enumerate(kept)}
    padding = None if whole.padding_idx is None else new[whole.padding_idx]
    embedding = torch.nn.Embedding(len(kept), whole.embedding_dim, padding)
    embedding.weight = torch.nn.Parameter(whole.weight[torch.tensor(kept)].clone(), requires_grad=False)
    model.set_input_embeddings(embedding)
    model.config.vocab_size = len(kept)
    for name, value in model.config.to_dict().items():
        if name.endswith("_token_id") and value in new:
            setattr(model.config, name, new[value])
    model.save_pretrained(folder)


def is_byte(token: str) -> bool:
    """Whether a piece is a byte-fallback piece, for example `<0x0A>`."""
    return len(token) == 6 and token.startswith("<0x") and token.endswith(">")


def _chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(texts)
    return iter(lambda: list(islice(rest, CHUNK)), [])
