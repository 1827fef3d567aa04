"""What models with a head say of texts: logits, labels of tokens and of words, and answers in characters of the text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from tokenizers import Tokenizer

from export.session import softmax, token_budget_batches, token_ids

OVERLAP = 64  # tokens that neighbouring windows of a long context share
BATCH_TOKENS = 4096


class Runs(Protocol):
    """What a model must know to be asked: an `export.session.Session` does, and one that is still being exported."""

    max_seq_len: int
    tokenizer: Any

    def require_task(self, *tasks: str) -> None:
        """Raise UsageError unless the model's task is one of these."""

    def pad(self, rows: Sequence[Sequence[int] | np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Ids and mask (B, T) of rows of token ids."""

    def run(
        self, input_ids: np.ndarray, attention_mask: np.ndarray, token_type_ids: np.ndarray | None = None
    ) -> np.ndarray:
        """The model's outputs."""


@dataclass(frozen=True)
class TokenScores:
    """What a token classifier says of one text.

    Args:
        offsets: (T, 2) first character of each token, and the one after its last; special tokens left out.
        probabilities: (T, C) in the order of the session's labels.
    """

    offsets: np.ndarray
    probabilities: np.ndarray


@dataclass(frozen=True)
class Answer:
    """A span of the context.

    Args:
        text: the characters from `start` to `end`.
        start: first character in the context.
        end: the character after the last.
        score: sum of the two logits; of windows of one context the highest wins.
    """

    text: str
    start: int
    end: int
    score: float


def text_logits(session: Runs, texts: Sequence[str], batch_tokens: int = BATCH_TOKENS) -> np.ndarray:
    """Logits (N, C) of texts, cut at `max_seq_len`, in their order whatever the batches.

    Args:
        session: of a text classifier.
        texts: N texts.
        batch_tokens: padded tokens that one call may hold.

    Raises:
        UsageError: a session of another task.
    """
    session.require_task("text-classification")
    return np.stack(_in_batches(session, token_ids(session.tokenizer, list(texts)), batch_tokens))


def token_scores(session: Runs, texts: Sequence[str], batch_tokens: int = BATCH_TOKENS) -> list[TokenScores]:
    """Label probabilities of the tokens of texts, cut at the session's `max_seq_len`, in their order whatever the batches.

    Args:
        session: of a token classifier.
        texts: N texts.
        batch_tokens: padded tokens that one call may hold.

    Raises:
        UsageError: a session of another task.
    """
    session.require_task("token-classification")
    encodings = session.tokenizer.encode_batch(list(texts))
    result = []
    for encoding, logits in zip(encodings, _in_batches(session, _ids(encodings), batch_tokens), strict=True):
        real = np.flatnonzero(np.asarray(encoding.special_tokens_mask) == 0)
        offsets = np.asarray(encoding.offsets, dtype=np.int64).reshape(-1, 2)[real]
        result.append(TokenScores(offsets, softmax(logits[real])))
    return result


def word_labels(
    session: Runs, texts: Sequence[Sequence[str]], batch_tokens: int = BATCH_TOKENS
) -> list[list[int | None]]:
    """The class of each word, that of its first token, or none where the tokenizer makes nothing of it.

    Words that `max_seq_len` cuts off, at the end, are left out.

    Args:
        session: of a token classifier.
        texts: N lists of words.
        batch_tokens: padded tokens that one call may hold.

    Raises:
        UsageError: a session of another task.
    """
    session.require_task("token-classification")
    encodings = session.tokenizer.encode_batch([list(words) for words in texts], is_pretokenized=True)
    outputs = _in_batches(session, _ids(encodings), batch_tokens)
    result = []
    for words, encoding, logits in zip(texts, encodings, outputs, strict=True):
        label: dict[int, int] = {}
        for word, best in zip(encoding.word_ids, logits.argmax(-1).tolist(), strict=False):
            if word is not None:
                label.setdefault(word, best)
        count = len(words) if len(encoding.ids) < session.max_seq_len else max(label, default=-1) + 1
        result.append([label.get(word) for word in range(count)])
    return result


def _ids(encodings: Sequence[Any]) -> list[list[int]]:
    return [encoding.ids for encoding in encodings]


def _in_batches(session: Runs, rows: Sequence[Sequence[int]], batch_tokens: int) -> list[np.ndarray]:
    """The output for each row, with what belongs to padding, in the order of the rows."""
    result: list[np.ndarray] = [np.empty(0)] * len(rows)
    for batch in token_budget_batches([len(row) for row in rows], batch_tokens):
        for place, output in zip(batch, session.run(*session.pad([rows[place] for place in batch])), strict=True):
            result[place] = output
    return result


class Answerer:
    """A session that answers questions about texts of any length.

    Args:
        session: of a question answerer.

    Raises:
        UsageError: a session of another task.
    """

    def __init__(self, session: Runs) -> None:
        session.require_task("question-answering")
        self._session = session
        description = session.tokenizer.to_str()
        self._whole = Tokenizer.from_str(description)
        self._whole.no_truncation()
        self._pair = Tokenizer.from_str(description)
        overlap = min(OVERLAP, session.max_seq_len // 4)
        self._pair.enable_truncation(session.max_seq_len, stride=overlap, strategy="only_second")

    def answer(self, question: str, context: str, max_answer_tokens: int = 30) -> Answer:
        """The span of the context that answers a question best; empty for an empty context.

        A context that does not fit is read in windows that share tokens.

        Args:
            question: cut at half of the session's `max_seq_len`.
            context: any length.
            max_answer_tokens: longest answer.
        """
        return self.answers([(question, context)], max_answer_tokens)[0]

    def answers(
        self, pairs: Sequence[tuple[str, str]], max_answer_tokens: int = 30, batch_tokens: int = BATCH_TOKENS
    ) -> list[Answer]:
        """What `answer` gives to each pair of a question and its context, in their order whatever the batches.

        Args:
            pairs: N questions with their contexts.
            max_answer_tokens: longest answer.
            batch_tokens: padded tokens that one call may hold.
        """
        windows = [(place, window) for place, pair in enumerate(pairs) for window in self._windows(*pair)]
        best = [Answer("", 0, 0, -np.inf)] * len(pairs)
        for batch in token_budget_batches([len(window.ids) for _, window in windows], batch_tokens):
            chosen = [windows[number] for number in batch]
            ids, mask = self._session.pad([window.ids for _, window in chosen])
            types = np.zeros_like(ids)
            for row, (_, window) in zip(types, chosen, strict=True):
                row[: len(window.type_ids)] = window.type_ids
            for (place, window), logits in zip(chosen, self._session.run(ids, mask, types), strict=True):
                found = _best_span(window, logits[: len(window.ids)], pairs[place][1], max_answer_tokens)
                if found.score > best[place].score:
                    best[place] = found
        return best

    def _windows(self, question: str, context: str) -> list[Any]:
        """Encodings of the question with each window of the context."""
        asked = self._whole.encode(question, add_special_tokens=False)
        if len(asked.ids) > (most := self._session.max_seq_len // 2):
            question = question[: asked.offsets[most - 1][1]]
        encoding = self._pair.encode(question, context)
        return [encoding, *encoding.overflowing]


def _best_span(window: Any, logits: np.ndarray, context: str, most: int) -> Answer:
    """The best span of one window; its score is minus infinity where the window has nothing of the context.

    Args:
        window: encoding of the question with a part of the context.
        logits: (T, 2) of an answer's first and last token.
        context: the whole context, into which the window's offsets point.
        most: tokens of the longest answer.
    """
    inside = np.asarray([part == 1 for part in window.sequence_ids])
    allowed = inside[:, None] & inside[None, :] & _within(len(inside), most)
    score = np.where(allowed, logits[:, :1] + logits[:, 1][None, :], -np.inf)
    begin, end = np.unravel_index(int(score.argmax()), score.shape)
    start, stop = window.offsets[begin][0], window.offsets[end][1]
    return Answer(context[start:stop], start, stop, float(score[begin, end]))


def _within(size: int, most: int) -> np.ndarray:
    """(T, T): whether the second place is none to `most` - 1 tokens after the first."""
    places = np.arange(size)
    distance = places[None, :] - places[:, None]
    return np.asarray((distance >= 0) & (distance < most))
