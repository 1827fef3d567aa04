"""A random sample of a corpus's sentences, from all units or from 64 of them; the same each time."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from heapq import nsmallest

import numpy as np

from kdnas.errors import KdnasError
from kdnas.filtering.audit import document_keys, sentence_uniforms, uniforms
from kdnas.filtering.options import FilterOptions
from kdnas.filtering.plan import EXPANSION, Unit
from kdnas.filtering.reading import read_chunks
from kdnas.filtering.spans import sentence_spans
from kdnas.store.progress import say, stage

PURPOSE = "sample"
MOST_UNITS = 64  # units that are read
SENTENCE_BYTES = 100  # of an average sentence, roughly
SPARE = 4  # sentences of the documents that are split, for each one that is drawn


@dataclass(frozen=True)
class Sample:
    """Sentences of a corpus.

    Args:
        texts: the sentences; each part of the corpus is spread over the whole list.
        whole: whether they are all sentences of the corpus.
    """

    texts: list[str]
    whole: bool


def draw_sample(units: Iterable[Unit], options: FilterOptions, size: int, seed: int) -> Sample:
    """Draw sentences at random. Each unit gives a number in proportion to its bytes; of more than 64, random ones are read.

    In a unit, some documents are chosen at random, with about four times the wanted number of sentences, and from these the
    sentences. A unit that cannot be read gives none; the run reports it later.

    Args:
        units: the units of the plan.
        options: how they are read.
        size: number of sentences.
        seed: of the choices.
    """
    every = list(units)
    chosen = every
    if len(every) > MOST_UNITS:
        order = np.random.default_rng(seed).permutation(len(every))[:MOST_UNITS]
        chosen = [every[index] for index in sorted(order)]
    weights = np.array([unit_bytes(unit, options) for unit in chosen], float)
    edges = np.round(size * np.concatenate([[0.0], np.cumsum(weights)]) / max(weights.sum(), 1)).astype(int)
    found: list[tuple[float, str]] = []
    whole = len(chosen) == len(every)
    with stage("gate: sample", float(weights.sum())) as progress:
        for unit, wanted, weight in zip(chosen, np.diff(edges).tolist(), weights.tolist(), strict=True):
            part, complete = _draw(unit, options, wanted, seed, weight)
            found += part
            whole = whole and complete
            progress.advance(weight)
    return Sample([text for _, text in sorted(found)], whole)


def unit_bytes(unit: Unit, options: FilterOptions) -> int:
    """Bytes of the unit's text, roughly."""
    total = 0
    for segment in unit.segments:
        if segment.file.kind == "parquet":
            total += min(segment.file.size * EXPANSION, options.unit_bytes)
        else:
            total += segment.file.size * EXPANSION if segment.file.compression else segment.end - segment.start
    return max(1, total)


def _draw(
    unit: Unit, options: FilterOptions, wanted: int, seed: int, weight: float
) -> tuple[list[tuple[float, str]], bool]:
    """Sentences with their random numbers, and whether they are all of the unit."""
    keep = min(1.0, SPARE * wanted * SENTENCE_BYTES / weight)
    found: list[tuple[float, str]] = []
    total = 0
    try:
        for part in _sentences(unit, options, seed, keep):
            total += len(part)
            found += part
            if len(found) > 2 * wanted + 10_000:
                found = nsmallest(wanted, found)
    except (KdnasError, OSError) as error:
        say(f"gate: no sentences were drawn from unit {unit.number}: {error}")
        return [], False
    return nsmallest(wanted, found), keep == 1 and total <= wanted


def _sentences(unit: Unit, options: FilterOptions, seed: int, keep: float) -> Iterator[list[tuple[float, str]]]:
    for chunk in read_chunks(unit, options):
        documents = [one for one in chunk.documents if one.text is not None]
        keys = document_keys(PURPOSE, seed, documents)
        kept = uniforms(keys) < keep
        texts = [one.text or "" for one, is_kept in zip(documents, kept, strict=True) if is_kept]
        spans = [sentence_spans(text) for text in texts]
        numbers = sentence_uniforms(keys[kept], [len(one) for one in spans]).tolist()
        sentences = [text[start:end] for text, one in zip(texts, spans, strict=True) for start, end in one]
        yield list(zip(numbers, sentences, strict=True))
