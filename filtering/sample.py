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

Drawn = tuple[float, str, str]  # random number of a sentence, its text, and the language of its document


@dataclass(frozen=True)
class Sample:
    """Sentences of a corpus.

    Args:
        texts: the sentences; each part of the corpus is spread over the whole list.
        languages: language of each sentence's document.
        whole: whether they are all sentences of the corpus.
    """

    texts: list[str]
    languages: list[str]
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
    found: list[Drawn] = []
    whole = len(chosen) == len(every)
    with stage("gate: sample", float(weights.sum())) as progress:
        for unit, wanted, weight in zip(chosen, np.diff(edges).tolist(), weights.tolist(), strict=True):
            part, complete = _draw(unit, options, wanted, seed, weight)
            found += part
            whole = whole and complete
            progress.advance(weight)
    found.sort()
    return Sample([text for _, text, _ in found], [language for _, _, language in found], whole)


def unit_bytes(unit: Unit, options: FilterOptions) -> int:
    """Bytes of the unit's text, roughly."""
    total = 0
    for segment in unit.segments:
        if segment.file.kind == "parquet":
            total += min(segment.file.size * EXPANSION, options.unit_bytes)
        else:
            total += segment.file.size * EXPANSION if segment.file.compression else segment.end - segment.start
    return max(1, total)


def _draw(unit: Unit, options: FilterOptions, wanted: int, seed: int, weight: float) -> tuple[list[Drawn], bool]:
    """Sentences of a unit, and whether they are all."""
    keep = min(1.0, SPARE * wanted * SENTENCE_BYTES / weight)
    found: list[Drawn] = []
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


def _sentences(unit: Unit, options: FilterOptions, seed: int, keep: float) -> Iterator[list[Drawn]]:
    for chunk in read_chunks(unit, options):
        documents = [one for one in chunk.documents if one.text is not None]
        keys = document_keys(PURPOSE, seed, documents)
        kept = uniforms(keys) < keep
        chosen = [(one.text or "", one.language) for one, is_kept in zip(documents, kept, strict=True) if is_kept]
        spans = [sentence_spans(text) for text, _ in chosen]
        numbers = iter(sentence_uniforms(keys[kept], [len(one) for one in spans]).tolist())
        yield [
            (next(numbers), text[start:end], language)
            for (text, language), one in zip(chosen, spans, strict=True)
            for start, end in one
        ]
