"""Scores of the sentences of many documents: pooled across documents, equal sentences scored once."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np

from kdnas.errors import KdnasError, UsageError
from kdnas.export.session import Session
from kdnas.filtering.ahead import ahead
from kdnas.filtering.decision import DIGITS, FIRST_SENTENCES, Policy, Scored
from kdnas.filtering.options import FilterOptions
from kdnas.filtering.plan import Unit
from kdnas.filtering.reading import Chunk

CACHED = 100_000  # distinct sentences that are remembered
# Labels of documents that users usually want to drop, in lower case.
DROP_LABELS = (
    "hap", "toxic", "toxicity", "offensive", "offense", "hate", "hateful", "hate_speech", "hate speech", "abusive",
    "abuse", "profanity", "unsafe", "harmful", "spam",
)  # fmt: skip
SECOND_LABELS = ("1", "label_1", "true", "yes", "positive")
SAME = 1e-4  # largest difference of a score between batches, to call it independent of the batch


class Sentence:
    """One distinct sentence: its token ids until it is scored, then its scores (L,)."""

    __slots__ = ("scores", "windows")

    def __init__(self, windows: list[np.ndarray]) -> None:
        self.windows = windows
        self.scores: np.ndarray | None = None


@dataclass(frozen=True)
class Prepared:
    """A chunk, and the sentences of each document with their spans; None for documents without text."""

    chunk: Chunk
    sentences: list[tuple[list[tuple[int, int]], list[Sentence]] | None]


@dataclass(frozen=True)
class ScoredChunk:
    """A chunk, the scores of its documents, and the numbers of sentences and tokens that the model read for it."""

    chunk: Chunk
    scored: list[Scored | None]
    sentences: int = 0
    tokens: int = 0


class Scorer:
    """Scores chunks of documents with an exported classifier.

    The scores of a piece of a unit depend on this piece alone, whatever was scored before: the memory of equal sentences starts
    empty with each piece. So every way to run gives the same rows, also with forms whose scores depend on the batch.

    Args:
        model: folder of a classifier that `kdnas export` wrote.
        form: form of the model; by default the fastest.
        threads: threads of the model.
        verify: check the model's files against the hashes in its manifest first.

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

    def scored(self, chunks: Iterable[Chunk], policy: Policy, options: FilterOptions) -> Iterator[ScoredChunk]:
        """Chunks with their scores, in order; reading, tokenising and scoring run at the same time, in bounded queues."""
        early = self.independent and options.mode == "split" and policy.document_score == "max"
        columns = [self.session.labels.index(label) for label in policy.labels]
        prepared = ahead(self._prepare(ahead(chunks), options.overlap))
        for one in prepared:
            yield self._score(one, policy, columns, options.batch_tokens, early)

    def scored_unit(
        self, policy: Policy, options: FilterOptions, _unit: Unit, chunks: Iterable[Chunk]
    ) -> Iterator[ScoredChunk]:
        """As `scored`, for the chunks of one unit."""
        return self.scored(chunks, policy, options)

    def _prepare(self, chunks: Iterable[Chunk], overlap: int) -> Iterator[Prepared]:
        from kdnas.filtering.spans import sentence_spans

        known: OrderedDict[bytes, Sentence] = OrderedDict()
        piece = -1
        for chunk in chunks:
            if chunk.piece != piece:
                known.clear()
                piece = chunk.piece
            new: dict[bytes, str] = {}
            split: list[tuple[list[tuple[int, int]], list[bytes]] | None] = []
            for document in chunk.documents:
                if document.text is None:
                    split.append(None)
                    continue
                spans = sentence_spans(document.text)
                texts = [document.text[start:end] for start, end in spans]
                keys = [blake2b(text.encode(), digest_size=16).digest() for text in texts]
                new |= {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
                split.append((spans, keys))
            windows = self._windows(list(new.values()), overlap)
            local = {key: Sentence(rows) for key, rows in zip(new, windows, strict=True)}
            sentences: list[tuple[list[tuple[int, int]], list[Sentence]] | None] = [
                None if one is None else (one[0], [local.get(key) or known[key] for key in one[1]]) for one in split
            ]
            known |= local
            while len(known) > CACHED:
                known.popitem(last=False)
            yield Prepared(chunk, sentences)

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

    def _score(
        self, prepared: Prepared, policy: Policy, columns: list[int], batch_tokens: int, early: bool
    ) -> ScoredChunk:
        texts = zip(prepared.chunk.documents, prepared.sentences, strict=True)
        documents = [(document.language, one[1]) for document, one in texts if one is not None]
        count = tokens = 0
        for later in (False, True) if early else (None,):
            wanted: dict[int, Sentence] = {}
            for language, sentences in documents:
                if later and (
                    len(sentences) <= FIRST_SENTENCES or policy.reached(_whole(sentences[:FIRST_SENTENCES]), language)
                ):
                    continue
                part = sentences[:FIRST_SENTENCES] if later is False else sentences
                wanted |= {id(one): one for one in part if one.scores is None}
            rows, total = self._fill(list(wanted.values()), columns, batch_tokens)
            count, tokens = count + rows, tokens + total
        nothing = np.full(len(columns), np.nan)
        scored = [None if one is None else Scored(one[0], _matrix(one[1], nothing)) for one in prepared.sentences]
        return ScoredChunk(prepared.chunk, scored, count, tokens)

    def _fill(self, sentences: list[Sentence], columns: list[int], batch_tokens: int) -> tuple[int, int]:
        """Score sentences; returns the numbers of sentences and tokens.

        Raises:
            KdnasError: the model's output is not a probability.
        """
        if not sentences:
            return 0, 0
        rows = [window for sentence in sentences for window in sentence.windows]
        chances = self.session.predict_ids(rows, batch_tokens)[:, columns].astype(np.float64)
        if not ((chances >= 0) & (chances <= 1 + 1e-5)).all():
            wrong = chances[~((chances >= 0) & (chances <= 1 + 1e-5))][0]
            raise KdnasError(f"the model's score is {wrong}; try another --form, and export the model again")
        starts = np.cumsum([0, *(len(sentence.windows) for sentence in sentences)])[:-1]
        values = np.round(np.minimum(np.maximum.reduceat(chances, starts), 1.0), DIGITS)
        tokens = sum(len(row) for row in rows)
        for sentence, value in zip(sentences, values, strict=True):
            sentence.scores, sentence.windows = value, []
        return len(sentences), tokens


def _whole(sentences: list[Sentence]) -> np.ndarray:
    return np.asarray(np.max([sentence.scores for sentence in sentences], axis=0))  # type: ignore[arg-type]


def _matrix(sentences: list[Sentence], nothing: np.ndarray) -> np.ndarray:
    if not sentences:
        return np.zeros((0, len(nothing)))
    return np.stack([nothing if one.scores is None else one.scores for one in sentences])


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
