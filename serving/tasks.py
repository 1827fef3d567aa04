"""What requests ask of a model: scores or an embedding of texts, entities, answers. Each input is tokenised once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kdnas.export.outputs import softmax
from kdnas.export.spans import Answer, best_span
from kdnas.serving.entities import Entity, entities_of
from kdnas.serving.jobs import Prepared, Row, TooManyTokensError
from kdnas.serving.model import Model
from kdnas.serving.windows import bounds, merged_tokens

CHARACTERS_PER_TOKEN = 4  # of estimates


@dataclass(frozen=True)
class TextInput:
    """One text, or a pair of texts.

    Args:
        text: the text.
        pair: the second text of a pair.
        too_long: what to do with more tokens than the model reads: `error`, `truncate` or `windows`; a pair is never split.
    """

    text: str
    pair: str | None = None
    too_long: str = "error"


@dataclass(frozen=True)
class Window:
    """A part of a long text.

    Args:
        start: first code point.
        end: the code point after the last.
        outputs: logits (C,) or vector (D,) of the part.
        tokens: number of its tokens.
    """

    start: int
    end: int
    outputs: np.ndarray
    tokens: int


@dataclass(frozen=True)
class TextOutput:
    """Result of a text.

    Args:
        windows: one window for a text that the model reads whole, without offsets; else the windows of a long text.
        tokens: tokens that the model read.
        truncated: whether the text was cut.
    """

    windows: Sequence[Window]
    tokens: int
    truncated: bool = False


def estimated_tokens(text: str) -> int:
    """Estimated number of tokens of a text, from its length in UTF-8."""
    size = len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
    return size // CHARACTERS_PER_TOKEN + 3


class TextTask:
    """Logits of a classifier or vectors of an encoder, for `TextInput`s."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def estimate(self, item: TextInput) -> int:
        cost = estimated_tokens(item.text) + (estimated_tokens(item.pair) if item.pair else 0)
        return cost if item.too_long == "windows" else min(cost, self.model.session.max_seq_len)

    def prepare(self, items: Sequence[TextInput]) -> list[Prepared | Exception]:
        session = self.model.session
        plain = [index for index, item in enumerate(items) if item.pair is None and not self._surely_long(item)]
        ids = dict(zip(plain, session.encode([items[index].text for index in plain], "whole"), strict=True))
        found: list[Prepared | Exception] = []
        for index, item in enumerate(items):
            if item.pair is not None:
                found.append(self._pair(item))
            elif index in ids and len(ids[index]) <= session.max_seq_len:
                found.append(Prepared([Row(ids[index])], (None, False)))
            elif item.too_long == "windows":
                windows = self.model.long_texts.windows([item.text])[0]
                found.append(Prepared([Row(window.ids) for window in windows], (windows, False)))
            elif item.too_long == "truncate":
                after = session.encoder.suffix
                cut = [*ids[index][: session.max_seq_len - len(after)], *after]
                found.append(Prepared([Row(cut)], (None, True)))
            else:
                found.append(TooManyTokensError(len(ids[index]), session.max_seq_len))
        return found

    def finish(self, item: TextInput, prepared: Prepared, outputs: list[np.ndarray]) -> TextOutput:
        windows, truncated = prepared.detail
        sizes = [len(row.ids) for row in prepared.rows]
        spans = [(0, len(item.text))] if windows is None else [bounds(window, item.text) for window in windows]
        parts = [Window(*span, output, size) for span, output, size in zip(spans, outputs, sizes, strict=True)]
        return TextOutput(parts, sum(sizes), truncated)

    def _surely_long(self, item: TextInput) -> bool:
        """Whether a text to be split is probably long, so that it is tokenised once, with offsets."""
        return item.too_long == "windows" and estimated_tokens(item.text) > self.model.session.max_seq_len

    def _pair(self, item: TextInput) -> Prepared | Exception:
        session = self.model.session
        encoding = session.tokenizer.encode(item.text, item.pair)
        if encoding.overflowing and item.too_long != "truncate":
            return TooManyTokensError(session.max_seq_len, session.max_seq_len, more=True)
        return Prepared([Row(encoding.ids, encoding.type_ids)], (None, bool(encoding.overflowing)))


class EntityTask:
    """Entities of a classifier of tokens, for texts of any length."""

    def __init__(self, model: Model) -> None:
        model.session.require_task("token-classification")
        self.model = model

    def estimate(self, item: str) -> int:
        return estimated_tokens(item)

    def prepare(self, items: Sequence[str]) -> list[Prepared | Exception]:
        found = self.model.long_texts.windows(items)
        return [Prepared([Row(window.ids) for window in windows], windows) for windows in found]

    def finish(self, item: str, prepared: Prepared, outputs: list[np.ndarray]) -> list[Entity]:
        offsets, words, logits = merged_tokens(prepared.detail, outputs, self.model.long_texts.step)
        chances = softmax(logits) if len(logits) else logits
        return entities_of(item, offsets, words, chances, self.model.session.labels)


class AnswerTask:
    """Answers to questions, for pairs of a question and a context of any length."""

    def __init__(self, model: Model, max_answer_tokens: int = 30) -> None:
        model.session.require_task("question-answering")
        self.model, self.most = model, max_answer_tokens

    def estimate(self, item: tuple[str, str]) -> int:
        return estimated_tokens(item[0]) + estimated_tokens(item[1])

    def prepare(self, items: Sequence[tuple[str, str]]) -> list[Prepared | Exception]:
        found: list[Prepared | Exception] = []
        for item in items:
            windows = self.model.answer_windows.of(*item)
            found.append(Prepared([Row(window.ids, window.type_ids) for window in windows], windows))
        return found

    def finish(self, item: tuple[str, str], prepared: Prepared, outputs: list[np.ndarray]) -> Answer:
        best = Answer("", 0, 0, -np.inf)
        for window, logits in zip(prepared.detail, outputs, strict=True):
            found = best_span(window, logits, item[1], self.most)
            if found.score > best.score:
                best = found
        return best


def scores_of(logits: np.ndarray, problem: str) -> np.ndarray:
    """Scores (C,) of logits (C,): probabilities, independent probabilities (multi-label), or the number of a regression."""
    if problem == "multi_label_classification":
        return np.asarray(1 / (1 + np.exp(-logits)))
    return logits if problem == "regression" else softmax(logits)


def text_scores(output: TextOutput, problem: str, label: int | None = None) -> tuple[np.ndarray, list[np.ndarray]]:
    """Scores (C,) of a text and of each of its windows.

    A long text has the mean of its windows, weighted by their tokens. With `label` it has the scores of the window in which this
    label is most probable, as `kdnas filter` decides.
    """
    parts: list[np.ndarray] = [scores_of(window.outputs, problem) for window in output.windows]
    if len(parts) == 1:
        return parts[0], parts
    if label is not None:
        return max(parts, key=lambda scores: float(scores[label])), parts
    weights = np.asarray([window.tokens for window in output.windows], dtype=np.float64)
    return np.average(np.stack(parts), axis=0, weights=weights), parts


def text_vector(output: TextOutput, normalize: bool = True) -> np.ndarray:
    """Vector (D,) of a text; a long text has the mean of its windows, weighted by their tokens."""
    weights = np.asarray([window.tokens for window in output.windows], dtype=np.float64)
    vector = np.average(np.stack([window.outputs for window in output.windows]), axis=0, weights=weights)
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12) if normalize else vector)
