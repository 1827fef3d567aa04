"""The inputs of a comparison: real sentences of exact token lengths, a mix of all lengths, and pairs with a known similarity."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kdnas.errors import UsageError
from kdnas.text.lines import json_rows

LENGTHS = (8, 21, 32, 64, 128)  # tokens, with special tokens
MIX = "mix"
STSB = "glue/stsb/validation"  # below the data root, as in `kdnas suites`; its test split has no labels


def text_sets(texts: Sequence[str], tokenizer: Any, max_seq_len: int, mix: int, each: int, seed: int) -> dict[str, Any]:
    """Texts by set: `mix`, and one set for each length.

    A text of an exact length is a run of sentences of the corpus, cut behind a token.

    Args:
        texts: sentences of the corpus, at least `mix`.
        tokenizer: a `tokenizers.Tokenizer` without padding and truncation.
        max_seq_len: lengths above it are left out.
        mix: number of sentences in the mix, drawn at random.
        each: number of texts of each length.
        seed: seed of the draws.

    Returns:
        `{"mix": mix texts, "8": each texts, ...}`.

    Raises:
        UsageError: the corpus has too little text.
    """
    rng = np.random.default_rng(seed)
    shuffled = [texts[index] for index in rng.permutation(len(texts))]
    sets = {MIX: shuffled[:mix]}
    for length in (length for length in LENGTHS if length <= max_seq_len):
        found: list[str] = []
        for text in _of_length(shuffled, tokenizer, length):
            found.append(text)
            if len(found) == each:
                break
        else:
            raise UsageError(
                f"the corpus gives only {len(found)} texts of {length} tokens, {each} are needed; give a larger corpus"
            )
        sets[str(length)] = found
    return sets


def _of_length(texts: Sequence[str], tokenizer: Any, length: int) -> Iterator[str]:
    """Texts of exactly this many tokens, each from other sentences."""
    run = ""
    for text in texts:
        run = f"{run} {text}".strip()
        encoding = tokenizer.encode(run)
        if len(encoding.ids) < length:
            continue
        special = np.array(encoding.special_tokens_mask, dtype=bool)
        ends = [end for (_, end), out in zip(encoding.offsets, special, strict=True) if not out]
        wanted = length - int(special.sum())
        cut = run[: ends[wanted - 1]] if 0 < wanted <= len(ends) else ""
        if cut and len(tokenizer.encode(cut).ids) == length:
            yield cut
        run = ""


def id_sets(sets: dict[str, list[str]], tokenizer: Any, max_seq_len: int) -> dict[str, list[list[int]]]:
    """The token ids of each set under the name `ids-NAME`, cut as the model cuts them."""
    tokenizer.enable_truncation(max_seq_len)
    return {f"ids-{name}": [tokenizer.encode(text).ids for text in texts] for name, texts in sets.items()}


def similarity_pairs(data_root: Path) -> tuple[list[str], list[str], list[float]]:
    """First sentences, second sentences and scores from 0 to 5 of the validation rows of STS-B (Cer et al. 2017).

    Raises:
        UsageError: the file is missing or damaged.
    """
    found = sorted((data_root / STSB).parent.glob(Path(STSB).name + ".jsonl*"))
    if not found:
        raise UsageError(
            f"data root '{data_root}': no {STSB}.jsonl or .jsonl.gz there; give the folder that has `glue/`"
        )
    rows = [row for _, row in json_rows(found[0], "STS-B")]
    try:
        return (
            [str(row["sentence1"]) for row in rows],
            [str(row["sentence2"]) for row in rows],
            [float(row["label"]) for row in rows],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{found[0]}: a row lacks sentence1, sentence2 or a numeric label ({error})") from error
