"""Outputs of models with a head: logits of texts, labels of tokens and words, and answers as spans of characters."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from tokenizers import Tokenizer

from kdnas.export.outputs import softmax
from kdnas.export.presplit import for_words
from kdnas.export.session import BATCH_TOKENS, pad_types, run_batches, token_budget_batches
from kdnas.export.texts import are_pairs, require_list, require_strings

OVERLAP = 64  # tokens shared by neighbouring windows of a long context


class Runs(Protocol):
    """The interface of a runnable model: a `kdnas.export.session.Session`, or a form during its export."""

    max_seq_len: int
    tokenizer: Any
    streams: int

    def require_task(self, *tasks: str) -> None:
        """Raise UsageError unless the model's task is one of `tasks`."""

    def pad(self, rows: Sequence[Sequence[int] | np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Ids and mask (B, T) of rows of token ids."""

    def run(
        self, input_ids: np.ndarray, attention_mask: np.ndarray, token_type_ids: np.ndarray | None = None
    ) -> np.ndarray:
        """The model's outputs."""


@dataclass(frozen=True)
class TokenScores:
    """Output of a token classifier for one text.

    Args:
        offsets: start and end character (T, 2) of each token, end exclusive, without special tokens.
        probabilities: class probabilities (T, C) in the order of the session's labels.
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
        score: sum of the two logits; among windows of one context the highest wins.
    """

    text: str
    start: int
    end: int
    score: float


def text_logits(session: Runs, texts: Sequence[str | tuple[str, str]], batch_tokens: int = BATCH_TOKENS) -> np.ndarray:
    """Logits (N, C) of texts or pairs of texts, cut at `max_seq_len`, in the order of the texts.

    Args:
        session: session of a text classifier.
        texts: N texts, or N pairs; in a pair the longer text is cut first.
        batch_tokens: maximum padded tokens per call.

    Raises:
        UsageError: the session has another task.
    """
    session.require_task("text-classification")
    if not texts:
        raise ValueError("no texts")
    typed = are_pairs(texts)
    encodings = session.tokenizer.encode_batch_fast(list(texts))
    return np.stack(_in_batches(session, encodings, batch_tokens, typed))


def token_scores(session: Runs, texts: Sequence[str], batch_tokens: int = BATCH_TOKENS) -> list[TokenScores]:
    """Label probabilities of the tokens of texts, cut at the session's `max_seq_len`, in the order of the texts.

    Args:
        session: session of a token classifier.
        texts: N texts.
        batch_tokens: maximum padded tokens per call.

    Raises:
        UsageError: the session has another task.
    """
    session.require_task("token-classification")
    require_strings(texts)
    encodings = session.tokenizer.encode_batch(list(texts))
    result = []
    for encoding, logits in zip(encodings, _in_batches(session, encodings, batch_tokens), strict=True):
        real = np.flatnonzero(np.asarray(encoding.special_tokens_mask) == 0)
        offsets = np.asarray(encoding.offsets, dtype=np.int64).reshape(-1, 2)[real]
        result.append(TokenScores(offsets, softmax(logits[real])))
    return result


def word_labels(
    session: Runs, texts: Sequence[Sequence[str]], batch_tokens: int = BATCH_TOKENS
) -> list[list[int | None]]:
    """The class of each word, taken from its first token; None for words without tokens.

    Words beyond `max_seq_len` are left out.

    Args:
        session: session of a token classifier.
        texts: N lists of words.
        batch_tokens: maximum padded tokens per call.

    Raises:
        UsageError: the session has another task.
    """
    session.require_task("token-classification")
    require_list(texts)
    for words in texts:
        require_strings(words)
    encodings = for_words(session.tokenizer).encode_batch([list(words) for words in texts], is_pretokenized=True)
    outputs = _in_batches(session, encodings, batch_tokens)
    result = []
    for words, encoding, logits in zip(texts, encodings, outputs, strict=True):
        label: dict[int, int] = {}
        for word, best in zip(encoding.word_ids, logits.argmax(-1).tolist(), strict=False):
            if word is not None:
                label.setdefault(word, best)
        count = len(words) if len(encoding.ids) < session.max_seq_len else max(label, default=-1) + 1
        result.append([label.get(word) for word in range(count)])
    return result


def _in_batches(session: Runs, encodings: Sequence[Any], batch_tokens: int, typed: bool = False) -> list[np.ndarray]:
    """The padded output of each encoding, in the given order; `typed` encodings (pairs) have token types."""
    result: list[np.ndarray] = [np.empty(0)] * len(encodings)

    def work(batch: list[int]) -> None:
        ids, mask = session.pad([encodings[index].ids for index in batch])
        types = pad_types([encodings[index].type_ids for index in batch], ids) if typed else None
        for index, output in zip(batch, session.run(ids, mask, types), strict=True):
            result[index] = output

    run_batches(session.streams, work, token_budget_batches([len(one.ids) for one in encodings], batch_tokens))
    return result


class Windows:
    """Splits the context of a question into parts that fit into a model; neighbouring parts share tokens.

    Args:
        tokenizer: a `tokenizers.Tokenizer`.
        max_seq_len: maximum tokens of question and part together, with special tokens.
    """

    def __init__(self, tokenizer: Any, max_seq_len: int) -> None:
        description = tokenizer.to_str()
        self._whole, self._pair = Tokenizer.from_str(description), Tokenizer.from_str(description)
        self._whole.no_truncation()
        overlap = min(OVERLAP, max_seq_len // 4)
        self._pair.enable_truncation(max_seq_len, stride=overlap, strategy="only_second")
        self.longest = max_seq_len // 2  # tokens of a question

    def cuts(self, question: str) -> bool:
        """Whether a question is longer than `longest` tokens."""
        return len(self._whole.encode(question, add_special_tokens=False).ids) > self.longest

    def of(self, question: str, context: str) -> list[Any]:
        """Encodings of the question, cut at half of `max_seq_len`, each with one part of the context."""
        asked = self._whole.encode(question, add_special_tokens=False)
        if len(asked.ids) > self.longest:
            question = question[: asked.offsets[self.longest - 1][1]]
        encoding = self._pair.encode(question, context)
        return [encoding, *encoding.overflowing]


class Answerer:
    """Answers questions about texts of any length.

    Args:
        session: session of a question-answering model.

    Raises:
        UsageError: the session has another task.
    """

    def __init__(self, session: Runs) -> None:
        session.require_task("question-answering")
        self._session = session
        self._windows = Windows(session.tokenizer, session.max_seq_len)

    def answer(self, question: str, context: str, max_answer_tokens: int = 30) -> Answer:
        """The best answer to a question in its context; empty for an empty context.

        A context that does not fit is read in overlapping windows.

        Args:
            question: the question, cut at half of the session's `max_seq_len`.
            context: the context, of any length.
            max_answer_tokens: maximum tokens of the answer.
        """
        return self.answers([(question, context)], max_answer_tokens)[0]

    def answers(
        self, pairs: Sequence[tuple[str, str]], max_answer_tokens: int = 30, batch_tokens: int = BATCH_TOKENS
    ) -> list[Answer]:
        """As `answer`, for each pair of a question and its context, in the order of the pairs.

        Args:
            pairs: N questions with their contexts.
            max_answer_tokens: maximum tokens of an answer.
            batch_tokens: maximum padded tokens per call.
        """
        windows = [(index, window) for index, pair in enumerate(pairs) for window in self._windows.of(*pair)]
        best = [Answer("", 0, 0, -np.inf)] * len(pairs)
        outputs = _in_batches(self._session, [window for _, window in windows], batch_tokens, typed=True)
        for (index, window), logits in zip(windows, outputs, strict=True):
            found = best_span(window, logits[: len(window.ids)], pairs[index][1], max_answer_tokens)
            if found.score > best[index].score:
                best[index] = found
        return best


def best_span(window: Any, logits: np.ndarray, context: str, most: int) -> Answer:
    """The best span of one window; its score is minus infinity if the window holds no part of the context.

    Args:
        window: encoding of the question with a part of the context.
        logits: logits (T, 2) of an answer's first and last token.
        context: the whole context, into which the window's offsets point.
        most: maximum tokens of the answer.
    """
    inside = np.asarray([part == 1 for part in window.sequence_ids])
    allowed = inside[:, None] & inside[None, :] & _within(len(inside), most)
    score = np.where(allowed, logits[:, :1] + logits[:, 1][None, :], -np.inf)
    begin, end = np.unravel_index(int(score.argmax()), score.shape)
    start, stop = window.offsets[begin][0], window.offsets[end][1]
    return Answer(context[start:stop], start, stop, float(score[begin, end]))


def _within(size: int, most: int) -> np.ndarray:
    """(T, T): whether the second index is 0 to `most` - 1 tokens after the first."""
    indices = np.arange(size)
    distance = indices[None, :] - indices[:, None]
    return np.asarray((distance >= 0) & (distance < most))
