"""What models for token classification and question answering say of texts, in characters of the text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from export.session import Session, softmax, token_budget_batches

OVERLAP = 64  # tokens that neighbouring windows of a long context share


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


def token_scores(session: Session, texts: Sequence[str], batch_tokens: int = 4096) -> list[TokenScores]:
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
    result: list[Any] = [None] * len(encodings)
    for batch in token_budget_batches([len(one.ids) for one in encodings], batch_tokens):
        ids, mask = session.pad([encodings[place].ids for place in batch])
        for place, logits in zip(batch, session.run(ids, mask), strict=True):
            encoding = encodings[place]
            real = np.flatnonzero(np.asarray(encoding.special_tokens_mask) == 0)
            offsets = np.asarray(encoding.offsets, dtype=np.int64).reshape(-1, 2)[real]
            result[place] = TokenScores(offsets, softmax(logits[real]))
    return result


class Answerer:
    """A session that answers questions about texts of any length.

    Args:
        session: of a question answerer.

    Raises:
        UsageError: a session of another task.
    """

    def __init__(self, session: Session) -> None:
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
        best = Answer("", 0, 0, -np.inf)
        for window in self._windows(question, context):
            ids, mask = self._session.pad([window.ids])
            types = np.zeros_like(ids)
            types[0, : len(window.type_ids)] = window.type_ids
            first, last = self._session.run(ids, mask, types)[0, : len(window.ids)].T
            inside = np.asarray([part == 1 for part in window.sequence_ids])
            allowed = inside[:, None] & inside[None, :] & _within(len(inside), max_answer_tokens)
            score = np.where(allowed, first[:, None] + last[None, :], -np.inf)
            begin, end = np.unravel_index(int(score.argmax()), score.shape)
            if score[begin, end] > best.score:
                start, stop = window.offsets[begin][0], window.offsets[end][1]
                best = Answer(context[start:stop], start, stop, float(score[begin, end]))
        return best

    def _windows(self, question: str, context: str) -> list[Any]:
        """Encodings of the question with each window of the context."""
        asked = self._whole.encode(question, add_special_tokens=False)
        if len(asked.ids) > (most := self._session.max_seq_len // 2):
            question = question[: asked.offsets[most - 1][1]]
        encoding = self._pair.encode(question, context)
        return [encoding, *encoding.overflowing]


def _within(size: int, most: int) -> np.ndarray:
    """(T, T): whether the second place is none to `most` - 1 tokens after the first."""
    places = np.arange(size)
    distance = places[None, :] - places[:, None]
    return np.asarray((distance >= 0) & (distance < most))
