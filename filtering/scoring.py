"""Scores of the sentences of many documents: pooled across documents, equal sentences scored once."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import chain, pairwise
from pathlib import Path

import numpy as np

from kdnas.errors import KdnasError, UsageError
from kdnas.export.session import Session
from kdnas.filtering.ahead import ahead
from kdnas.filtering.audit import count_gate, document_keys, sentence_uniforms
from kdnas.filtering.decision import DIGITS, FIRST_SENTENCES, Policy, Scored
from kdnas.filtering.gate import Gate
from kdnas.filtering.options import FilterOptions
from kdnas.filtering.plan import Unit
from kdnas.filtering.reading import Chunk
from kdnas.filtering.spans import sentence_spans

TEXTS_AT_ONCE = 4096  # are tokenised at once: the lists of ids take more memory than the texts
CACHED = 100_000  # distinct sentences that are remembered
# Labels of documents that users usually want to drop, in lower case.
DROP_LABELS = (
    "hap", "toxic", "toxicity", "offensive", "offense", "hate", "hateful", "hate_speech", "hate speech", "abusive",
    "abuse", "profanity", "unsafe", "harmful", "spam",
)  # fmt: skip
SECOND_LABELS = ("1", "label_1", "true", "yes", "positive")
SAME = 1e-4  # largest difference of a score between batches, to call it independent of the batch


class Sentence:
    """One distinct sentence: its token ids until it is scored, then its scores (L,); None before.

    Args:
        passed: whether it passed the gate.
    """

    __slots__ = ("passed", "scores", "windows")

    def __init__(self, passed: bool) -> None:
        self.passed = passed
        self.windows: list[np.ndarray] | None = None
        self.scores: np.ndarray | None = None


@dataclass(frozen=True)
class Prepared:
    """A chunk and the S sentences of its documents with text, in order.

    Args:
        chunk: the chunk.
        spans: for each document, the spans of its sentences; None without text.
        sentences: (S,) the sentences; equal ones are the same object.
        shown: (S,) whether the model scores the sentence: it did not pass the gate, or it is audited.
    """

    chunk: Chunk
    spans: list[list[tuple[int, int]] | None]
    sentences: list[Sentence]
    shown: np.ndarray

    @property
    def edges(self) -> list[int]:
        """Where the sentences of each document with text start, and S."""
        return np.cumsum([0, *(len(one) for one in self.spans if one is not None)]).tolist()


@dataclass(frozen=True)
class ScoredChunk:
    """A chunk and the scores of its documents.

    Args:
        chunk: the chunk.
        scored: for each document, its scores; None without text.
        sentences: sentences that the model read.
        tokens: tokens that the model read.
        gate: what the gate did, by language, as in `kdnas.filtering.audit`.
    """

    chunk: Chunk
    scored: list[Scored | None]
    sentences: int = 0
    tokens: int = 0
    gate: dict[str, list[int]] = field(default_factory=dict)


class Scorer:
    """Scores chunks of documents with an exported classifier.

    The scores of a piece of a unit depend on this piece alone, whatever was scored before: the memory of equal sentences starts
    empty with each piece. So every way to run gives the same rows, also with forms whose scores depend on the batch.

    Args:
        model: folder of a classifier that `kdnas export` wrote.
        form: form of the model; by default the fastest.
        threads: threads of the model.
        verify: compare the files that the model's form needs with the hashes in its manifest first.

    Attributes:
        independent: whether a sentence's score is the same in each batch (within 1e-4). Only then a document that is
            already to be dropped is not scored to its end.
    """

    def __init__(self, model: Path, form: str | None, threads: int, verify: bool = True) -> None:
        # For many texts one batch per core is fastest, unlike for a single text.
        self.session = Session(model, form, threads, verify, streams=threads)
        self.session.require_task("text-classification", "feature-extraction")
        if self.session.task != "text-classification":
            raise UsageError(
                f"model '{model}': this is an encoder without a classification head; give an exported classifier: "
                "`kdnas evaluate` fine-tunes one (classifiers/<task>) and `kdnas export --model` exports it"
            )
        if len(self.session.labels) == 1:
            raise UsageError(f"{model}: this is a regression model; give a classifier")
        self.independent = independent_of_batch(self.session)

    def scored(
        self, chunks: Iterable[Chunk], policy: Policy, options: FilterOptions, gate: Gate | None = None
    ) -> Iterator[ScoredChunk]:
        """Chunks with their scores, in order; reading, tokenising and scoring run at the same time, in bounded queues."""
        early = self.independent and options.mode == "split" and policy.document_score == "max"
        for one in ahead(self._prepare(ahead(chunks), options.overlap, gate)):
            yield self._score(one, policy, options.batch_tokens, early, gate is not None)
            del one  # the next one may take as much memory

    def scored_unit(
        self, policy: Policy, options: FilterOptions, gate: Gate | None, _unit: Unit, chunks: Iterable[Chunk]
    ) -> Iterator[ScoredChunk]:
        """As `scored`, for the chunks of one unit."""
        return self.scored(chunks, policy, options, gate)

    def text_scores(self, texts: list[str], policy: Policy, options: FilterOptions) -> np.ndarray:
        """Scores (N, L) of N sentences."""
        sentences = [Sentence(False) for _ in texts]
        for sentence, windows in zip(sentences, self._windows(texts, options.overlap), strict=True):
            sentence.windows = windows
        self._fill(sentences, policy, options.batch_tokens)
        return _matrix(sentences, np.ones(len(texts), bool), len(policy.labels))

    def _prepare(self, chunks: Iterable[Chunk], overlap: int, gate: Gate | None) -> Iterator[Prepared]:
        known: OrderedDict[bytes, Sentence] = OrderedDict()
        piece = -1
        for chunk in chunks:
            if chunk.piece != piece:
                known.clear()
                piece = chunk.piece
            yield self._prepared(chunk, known, overlap, gate)
            del chunk  # as above

    def _prepared(self, chunk: Chunk, known: OrderedDict[bytes, Sentence], overlap: int, gate: Gate | None) -> Prepared:
        """A chunk whose new sentences are tokenised and added to the known ones."""
        spans = [None if one.text is None else sentence_spans(one.text) for one in chunk.documents]
        texts = [
            one.text[start:end]
            for one, found in zip(chunk.documents, spans, strict=True)
            if one.text is not None
            for start, end in found or ()
        ]
        keys = [blake2b(text.encode(), digest_size=16).digest() for text in texts]
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        passed = gate.passes(list(new.values())).tolist() if gate is not None else [False] * len(new)
        local = {key: Sentence(one) for key, one in zip(new, passed, strict=True)}
        sentences = [local.get(key) or known[key] for key in keys]
        known |= local
        while len(known) > CACHED:
            known.popitem(last=False)
        prepared = Prepared(chunk, spans, sentences, _shown(chunk, spans, sentences, gate))
        self._tokenise(prepared, texts, overlap)
        return prepared

    def _tokenise(self, prepared: Prepared, texts: list[str], overlap: int) -> None:
        """Set the token ids of the sentences that the model will read."""
        wanted: dict[int, tuple[Sentence, str]] = {}
        for sentence, text, shown in zip(prepared.sentences, texts, prepared.shown.tolist(), strict=True):
            if shown and sentence.windows is None:
                wanted.setdefault(id(sentence), (sentence, text))
        rows = list(wanted.values())
        for first in range(0, len(rows), TEXTS_AT_ONCE):
            part = rows[first : first + TEXTS_AT_ONCE]
            for (sentence, _), windows in zip(part, self._windows([text for _, text in part], overlap), strict=True):
                sentence.windows = windows

    def _windows(self, texts: list[str], overlap: int) -> list[list[np.ndarray]]:
        """Token ids of each text, special tokens included, in windows that the model can read."""
        encoder = self.session.encoder
        room = self.session.max_seq_len - len(encoder.prefix) - len(encoder.suffix)
        step = room - min(overlap, max(0, room - 1))
        found = []
        for ids in encoder.ids(texts) if texts else []:
            starts = range(0, max(1, len(ids) - room + step), step)
            found.append(
                [np.asarray([*encoder.prefix, *ids[at : at + room], *encoder.suffix], dtype=np.int32) for at in starts]
            )
        return found

    def _score(self, prepared: Prepared, policy: Policy, batch_tokens: int, early: bool, gated: bool) -> ScoredChunk:
        sentences, shown, width = prepared.sentences, prepared.shown, len(policy.labels)
        needed = np.ones(len(sentences), bool)  # sentences that may decide about their document
        count = tokens = 0
        for later in (False, True) if early else (None,):
            wanted: dict[int, Sentence] = {}
            for language, (start, end) in zip(prepared.chunk.languages, pairwise(prepared.edges), strict=True):
                middle = min(end, start + FIRST_SENTENCES)
                if later:
                    if middle == end:
                        continue
                    first = _matrix(sentences[start:middle], shown[start:middle], width)
                    if policy.reached(policy.whole(first), language):
                        needed[middle:end] = False
                        continue
                stop = middle if later is False else end
                part = zip(sentences[start:stop], shown[start:stop].tolist(), strict=True)
                wanted |= {id(one): one for one, is_shown in part if is_shown and one.scores is None}
            rows, total = self._fill(list(wanted.values()), policy, batch_tokens)
            count, tokens = count + rows, tokens + total
        scores = _matrix(sentences, shown, width)
        gate = _gate_counts(prepared, scores, needed, policy) if gated else {}
        return ScoredChunk(prepared.chunk, _by_document(prepared, scores), count, tokens, gate)

    def _fill(self, sentences: list[Sentence], policy: Policy, batch_tokens: int) -> tuple[int, int]:
        """Score sentences; returns the numbers of sentences and tokens.

        Raises:
            KdnasError: the model's output is not a probability.
        """
        if not sentences:
            return 0, 0
        columns = [self.session.labels.index(label) for label in policy.labels]
        parts = [sentence.windows or [] for sentence in sentences]
        rows = list(chain.from_iterable(parts))
        chances = self.session.predict_ids(rows, batch_tokens)[:, columns].astype(np.float64)
        if not ((chances >= 0) & (chances <= 1 + 1e-5)).all():
            wrong = chances[~((chances >= 0) & (chances <= 1 + 1e-5))][0]
            raise KdnasError(f"the model's score is {wrong}; try another --form, and export the model again")
        starts = np.cumsum([0, *map(len, parts)])[:-1]
        values = np.round(np.minimum(np.maximum.reduceat(chances, starts), 1.0), DIGITS)
        tokens = sum(len(row) for row in rows)
        for sentence, value in zip(sentences, values, strict=True):
            sentence.scores, sentence.windows = value, []
        return len(sentences), tokens


def _shown(
    chunk: Chunk, spans: list[list[tuple[int, int]] | None], sentences: list[Sentence], gate: Gate | None
) -> np.ndarray:
    """(S,) whether the model scores each sentence: it did not pass the gate, or the audit chose it."""
    if gate is None:
        return np.ones(len(sentences), bool)
    keys = document_keys("audit", gate.seed, [one for one in chunk.documents if one.text is not None])
    audited = sentence_uniforms(keys, [len(one) for one in spans if one is not None]) < gate.audit
    return audited | ~_passed(sentences)


def _passed(sentences: list[Sentence]) -> np.ndarray:
    return np.fromiter((one.passed for one in sentences), bool, len(sentences))


def _matrix(sentences: list[Sentence], shown: np.ndarray, width: int) -> np.ndarray:
    """Scores (S, L); NaN for sentences that the model has not scored, or that passed the gate."""
    found = np.full((len(sentences), width), np.nan)
    where = [index for index in np.flatnonzero(shown).tolist() if sentences[index].scores is not None]
    if where:
        found[where] = [sentences[index].scores for index in where]
    return found


def _by_document(prepared: Prepared, scores: np.ndarray) -> list[Scored | None]:
    audited = prepared.shown & _passed(prepared.sentences)
    parts = iter(pairwise(prepared.edges))
    found: list[Scored | None] = []
    for spans in prepared.spans:
        if spans is None:
            found.append(None)
            continue
        start, end = next(parts)
        found.append(Scored(spans, scores[start:end], np.flatnonzero(audited[start:end]).tolist()))
    return found


def _gate_counts(prepared: Prepared, scores: np.ndarray, needed: np.ndarray, policy: Policy) -> dict[str, list[int]]:
    passed = _passed(prepared.sentences) & needed
    languages, counts = prepared.chunk.languages, np.diff(prepared.edges).tolist()
    positive = policy.positive(scores, languages, counts) & needed
    return count_gate(languages, counts, passed, passed & prepared.shown, positive)


def independent_of_batch(session: Session) -> bool:
    """Whether short rows of tokens have the same scores alone and in a batch with others, within `SAME`."""
    encoder = session.encoder
    inner = encoder.ids(["The weather is fine today. What a terrible mess you have made of it, really!"])[0]
    room = session.max_seq_len - len(encoder.prefix) - len(encoder.suffix)
    parts = [inner[:2], inner[1:6], inner[3:], inner[:room]]
    rows = [[*encoder.prefix, *part[:room], *encoder.suffix] for part in parts]
    alone = np.concatenate([session.predict_ids([row]) for row in rows])
    return float(np.abs(session.predict_ids(rows) - alone).max()) < SAME


def choose_labels(labels: list[str], model: str, given: tuple[str, ...] | None) -> list[str]:
    """The labels whose documents are dropped.

    Raises:
        UsageError: the model does not have a label, or its labels do not show which one to drop.
    """
    if given is not None:
        for label in given:
            if label not in labels:
                raise UsageError(f"label '{label}': the model has no such label; it has {', '.join(labels)}")
        return list(dict.fromkeys(given))
    known = [name for name in labels if name.lower() in DROP_LABELS]
    if not known and len(labels) == 2:
        known = [name for name in labels if name.lower() in SECOND_LABELS]
    if len(known) != 1:
        raise UsageError(
            f"model '{model}': its labels do not show which one to drop; give --label, one of {', '.join(labels)}"
        )
    return known
