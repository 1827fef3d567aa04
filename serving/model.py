"""An exported model as the service runs it: one call for rows of any requests, with all tasks' outputs."""

import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from kdnas.export.session import Session, pad_types, run_batches, token_budget_batches
from kdnas.export.spans import Windows
from kdnas.export.thresholds import read_thresholds
from kdnas.serving.jobs import Row
from kdnas.serving.windows import LongTexts

CANARY = "You are very kind."


class Model:
    """A session with a name.

    Args:
        name: the name by which requests choose the model.
        path: folder that `kdnas export` wrote.
        form: form of the model to run; by default the fastest.
        threads: threads of all calls together.
        verify: compare the files that the form needs with the hashes in the manifest first.
        streams: parallel calls, as in `kdnas.export.session.Session`.

    Attributes:
        problem: for classifiers of texts `regression`, `single_label_classification` or `multi_label_classification`.
        thresholds: decision thresholds in the folder; None without them.
        seconds_per_token: measured time of one token; the scheduler keeps it current.

    Raises:
        UsageError: not an exported model, or an unknown form.
        KdnasError: a file has changed since the export.
    """

    def __init__(
        self,
        name: str,
        path: Path,
        form: str | None = None,
        threads: int | None = None,
        verify: bool = True,
        streams: int = 1,
    ) -> None:
        self.name, self.path, self.form = name, path, form
        self._settings = (threads, verify, streams)
        self.session = Session(path, form, threads, verify, streams=streams)
        self.seconds_per_token = 1e-5
        self.problem = "regression" if len(self.session.labels) == 1 else "single_label_classification"
        if self.session.multi_label:
            self.problem = "multi_label_classification"
        self.thresholds = read_thresholds(path)

    def again(self) -> "Model":
        """The model in the same folder, opened and verified again."""
        return Model(self.name, self.path, self.form, *self._settings)

    @cached_property
    def long_texts(self) -> LongTexts:
        """Splitter of long texts; loaded on first use."""
        return LongTexts(self.session)

    @cached_property
    def answer_windows(self) -> Windows:
        """Splitter of the contexts of questions; loaded on first use."""
        return Windows(self.session.tokenizer, self.session.max_seq_len)

    def warm(self) -> None:
        """Run the usual lengths once, and measure the time of a token.

        Raises:
            ValueError: the model's output for a short text is not finite.
        """
        self.session.warm()
        ids = self.session.encode([CANARY])[0]
        start = time.perf_counter()
        output = self.run([Row(ids)], len(ids))[0]
        self.seconds_per_token = (time.perf_counter() - start) / len(ids)
        if not np.isfinite(output).all():
            raise ValueError(f"the output of the model '{self.name}' is not a finite number")

    def run(self, rows: Sequence[Row], batch_tokens: int) -> list[np.ndarray]:
        """The output of each row, in their order.

        Args:
            rows: N rows of token ids with special tokens.
            batch_tokens: maximum padded tokens of one engine call; a longer row runs alone.

        Returns:
            float32 arrays: logits (C,) of a classifier of texts, the pooled state (D,) of an encoder, not normalised, or
            its unit vector (D,) if it has a linear head, logits (T, C) of a classifier of tokens, or logits (T, 2) of an answer's
            first and last token.
        """
        session = self.session
        result: list[np.ndarray] = [np.empty(0)] * len(rows)

        def work(batch: list[int]) -> None:
            ids, mask = session.pad([rows[index].ids for index in batch])
            types = None
            if any(rows[index].types is not None for index in batch):
                types = pad_types([rows[index].types or [0] * len(rows[index].ids) for index in batch], ids)
            output = session.run(ids, mask, types)
            if session.task == "feature-extraction" and not session.has_head:
                output = pooled(output, mask, session.pooling)
            for index, one in zip(batch, output, strict=True):
                result[index] = one if one.ndim == 1 else one[: len(rows[index].ids)]

        run_batches(1, work, token_budget_batches([len(row.ids) for row in rows], batch_tokens))
        return result

    def info(self) -> dict[str, Any]:
        """What a client needs to know: task, labels, limits."""
        session, known = self.session, self.thresholds
        return {
            "name": self.name,
            "task": session.task,
            "form": session.form,
            "labels": session.labels,
            "problem_type": self.problem if session.task == "text-classification" else None,
            "thresholds": known and {label: known.of(label) for label in known.labels},
            "max_seq_len": session.max_seq_len,
            "dimensions": session.dimensions if session.task == "feature-extraction" else None,
            "threads": session.threads,
        }


def pooled(states: np.ndarray, mask: np.ndarray, pooling: str) -> np.ndarray:
    """Vectors (B, D) of the states (B, T, D), not normalised: the mean over real tokens, or the first token's."""
    if pooling == "first":
        return np.asarray(states[:, 0])
    weights = mask[:, :, None].astype(states.dtype)
    return np.asarray((states * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1))
