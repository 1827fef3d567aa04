"""Run an exported encoder with ONNX Runtime or OpenVINO, a tokenizer and numpy, without torch and transformers.

An export folder holds `kdnas.json` (the settings of a session), `tokenizer.json` and one graph for each form.
"""

import ctypes
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from kdnas.errors import UsageError
from kdnas.export.encoder import TOKENIZER, read_encoder
from kdnas.export.engines import RUNTIMES, open_graph
from kdnas.export.folder import (
    EMBEDDING,
    MULTI_LABEL,
    TASKS,
    choose_form,
    graph_of,
    is_read,
    read_settings,
    read_tokenizer,
)
from kdnas.export.outputs import answers_of_texts, pool
from kdnas.export.texts import (
    SESSION_POLICIES,
    TooLong,
    TooLongError,
    are_pairs,
    longer_than,
    require_policy,
    require_strings,
)
from kdnas.models.engine import ENGINES
from kdnas.models.head import Prompts
from kdnas.store.artifact import Artifact
from kdnas.store.host import default_threads
from kdnas.text.padding import pad, padded_length

# Padded tokens per engine call: the activations between two matrix products still fit a core's cache (results/export).
BATCH_TOKENS = 1024


class Session:
    """An exported encoder or classifier, ready to run on this CPU; safe for concurrent callers.

    Args:
        path: folder that `kdnas export` wrote.
        form: form to run, one of the folder's; by default the fastest form within the loss bound, as the export measured.
        threads: threads per call; by default the number with which the export measured the form to be fastest, but at most
            `kdnas.store.host.default_threads`.
        verify: first compare every file that this form needs with its hash in the manifest; the others must only exist.
        spin: with ONNX Runtime, let the threads wait for the next call in a busy loop. Consecutive short texts run a sixth
            faster, but the threads occupy their cores for some milliseconds after each call.
        streams: calls that `predict` runs in parallel, with the threads divided among them; for many texts this gives a fifth
            more throughput than all threads in each call.
        too_long: what `predict` does with a text of more than `max_seq_len` tokens: `truncate` cuts it and warns once per
            session; `error` raises `kdnas.export.texts.TooLongError`.

    Attributes:
        task: one of `TASKS`.
        labels: class names in the order of the outputs; empty for feature extraction and question answering. A text classifier
            with one label is a regression, and the label names its number.
        multi_label: whether the labels of a text classifier are independent, so that each has a probability of its own.
        form: the form that runs.
        hidden: width D of the hidden states.
        encoder: converts texts to token ids, without special tokens and without truncation.
        max_seq_len: maximum input length in tokens, with special tokens.
        pooling: pooling of the hidden states: `mean` over the tokens, or the state of the `first` token.
        dimensions: size of the vectors of `predict`: D, or that of the teacher if the graph has a linear head.
        prompts: prompts of the model by name; `predict` puts the default one, if any, before each text.

    Raises:
        UsageError: `path` is not an export folder, the form is unknown, or the graph is damaged.
        KdnasError: a file has changed since the export, or is missing.
    """

    def __init__(
        self,
        path: str | Path,
        form: str | None = None,
        threads: int | None = None,
        verify: bool = True,
        spin: bool = False,
        streams: int = 1,
        too_long: TooLong = "truncate",
    ) -> None:
        path = Path(path)
        require_policy(too_long, SESSION_POLICIES)
        settings = read_settings(path)
        self.form = choose_form(path, settings["forms"], form)
        if verify:
            Artifact.load(path, "export").verify(partial(is_read, form=self.form))
        self.path, self.too_long = path, too_long
        self._warned = False
        self.task: str = settings["task"]
        self.labels: list[str] = list(settings["labels"])
        self.multi_label: bool = settings.get("problem_type") == MULTI_LABEL
        self.hidden = int(settings["hidden"])
        self.max_seq_len = int(settings["max_seq_len"])
        self.pad_id = int(settings["pad_id"])
        self.pooling: str = settings.get("pooling", "mean")  # missing in exports of earlier versions
        self.has_head = "dimensions" in settings
        self.dimensions = int(settings.get("dimensions", self.hidden))
        self.prompts = Prompts(settings.get("prompts", {}), settings.get("default_prompt"))
        best = min(int(settings.get("threads", {}).get(self.form, default_threads())), default_threads())
        self.threads = best if threads is None else threads
        if self.threads < 1:
            raise UsageError(f"threads is {threads}; at least 1 is needed")
        if streams < 1:
            raise UsageError(f"streams is {streams}; at least 1 is needed")
        self.streams = min(streams, self.threads)
        self.encoder = read_encoder(self.path, settings.get("encoder", TOKENIZER))
        outputs = (EMBEDDING,) if self.has_head else TASKS[self.task]
        self._run = open_graph(self.path / graph_of(self.form), self.form, outputs, self.threads, spin, self.streams)
        give_back_memory()

    def run(
        self, input_ids: np.ndarray, attention_mask: np.ndarray, token_type_ids: np.ndarray | None = None
    ) -> np.ndarray:
        """Run one engine call on a padded batch.

        Args:
            input_ids: (B, T) int64 token ids, padded with `pad_id`.
            attention_mask: (B, T) int64, 1 at real tokens.
            token_type_ids: (B, T) int64, 1 at the second text of a pair; by default 0. Models without token types ignore it.

        Returns:
            float32: last hidden states (B, T, D), unit vectors (B, `dimensions`) of a model with a linear head, logits (B, C)
            of texts, logits (B, T, C) of tokens, or the logits (B, T, 2) of an answer's first and last token.
        """
        return self._run(input_ids, attention_mask, token_type_ids)

    def pad(self, rows: Sequence[Sequence[int] | np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Ids and mask (B, T) of rows of token ids, padded to the engine's length step."""
        runtime = RUNTIMES[ENGINES[self.form].runtime]
        step = runtime.length_step if len(rows) == 1 else runtime.batch_step
        return pad(rows, self.pad_id, self.max_seq_len, step)

    def encode(self, texts: Sequence[str], too_long: TooLong = "truncate") -> list[list[int]]:
        """Token ids of each text, special tokens included.

        Args:
            texts: N texts.
            too_long: `truncate` cuts at `max_seq_len`, `error` raises TooLongError, `whole` never cuts.

        Raises:
            UsageError: `texts` is a bare string, or an item is not a string.
            TooLongError: a text is too long and `too_long` is `error`.
        """
        require_strings(texts)
        require_policy(too_long)
        return self._encoded(texts, too_long)[0]

    def _encoded(self, texts: Sequence[str], too_long: TooLong) -> tuple[list[list[int]], int]:
        """Token ids of each text, and the number of texts that are too long."""
        before, after = self.encoder.prefix, self.encoder.suffix
        around = len(before) + len(after)
        found = self.encoder.ids(texts)
        cut = longer_than(self.max_seq_len, [len(row) + around for row in found], too_long)
        room = None if too_long == "whole" else self.max_seq_len - around
        return [[*before, *row[:room], *after] for row in found], len(cut)

    def _encoded_pairs(self, pairs: Sequence[Any], too_long: TooLong) -> tuple[list[list[int]], list[list[int]], int]:
        """Token ids and token types of each pair, joined by the tokenizer, and the number of pairs that were cut.

        In a pair that is too long, the longer text is cut, as in `transformers`.
        """
        encodings = self.tokenizer.encode_batch([tuple(pair) for pair in pairs])
        cut = [index for index, encoding in enumerate(encodings) if encoding.overflowing]
        if cut and too_long == "error":
            raise TooLongError(cut[0], self.max_seq_len, self.max_seq_len, more=True)
        return [one.ids for one in encodings], [one.type_ids for one in encodings], len(cut)

    def _warn_once(self, cut: int, texts: int) -> None:
        if cut and not self._warned:
            self._warned = True
            warnings.warn(
                f"{cut} of {texts} texts have more than {self.max_seq_len} tokens and were cut; later texts are cut without a "
                "warning. too_long='error' refuses them",
                stacklevel=3,
            )

    @cached_property
    def tokenizer(self) -> Any:
        """A `tokenizers.Tokenizer` that cuts at `max_seq_len` and never pads, for pairs, words and character offsets.

        Loaded on first use, because it may take more memory than the model.
        """
        return read_tokenizer(self.path / TOKENIZER, self.max_seq_len)

    def predict(self, texts: Sequence[str] | Sequence[tuple[str, str]], batch_tokens: int = BATCH_TOKENS) -> np.ndarray:
        """Probabilities, numbers or embeddings of texts, in the order of the texts.

        Args:
            texts: N texts, or N pairs of texts, which the model's tokenizer joins.
            batch_tokens: maximum padded tokens per call (a longer text runs alone).

        Returns:
            float32: softmax probabilities (N, C) of a classifier, sigmoid probabilities (N, C) of a `multi_label` classifier,
            numbers (N, 1) of a regression, or L2-normalised vectors (N, D), pooled according to `pooling`.

        Raises:
            UsageError: `texts` is a bare string, an item is neither a string nor a pair, or the model labels tokens or answers
                questions (use `kdnas.export.spans`).
            TooLongError: a text is too long and the session has `too_long="error"`.
        """
        self.require_task("text-classification", "feature-extraction")
        types = None
        if are_pairs(texts):
            rows, types, cut = self._encoded_pairs(texts, self.too_long)
        else:
            require_strings(cast(Sequence[str], texts))
            prompt = self.prompts.text(None)
            rows, cut = self._encoded([prompt + text for text in cast(Sequence[str], texts)], self.too_long)
        self._warn_once(cut, len(texts))
        return self.predict_ids(rows, batch_tokens, types)

    def predict_ids(
        self,
        rows: Sequence[Sequence[int] | np.ndarray],
        batch_tokens: int = BATCH_TOKENS,
        types: Sequence[Sequence[int]] | None = None,
    ) -> np.ndarray:
        """As `predict`, for N rows of token ids.

        Args:
            rows: token ids of each text, with special tokens, at most `max_seq_len`.
            batch_tokens: maximum padded tokens per call.
            types: token types of each row; by default 0.
        """
        classifies = self.task == "text-classification"
        result = np.zeros((len(rows), len(self.labels) if classifies else self.dimensions), dtype=np.float32)

        def work(batch: list[int]) -> None:
            ids, mask = self.pad([rows[index] for index in batch])
            output = self.run(ids, mask, None if types is None else pad_types([types[index] for index in batch], ids))
            if not (classifies or self.has_head):
                output = pool(output, mask, self.pooling)
            result[batch] = answers_of_texts(output, self.multi_label) if classifies else output

        run_batches(self.streams, work, token_budget_batches([len(row) for row in rows], batch_tokens))
        return result

    def require_task(self, *tasks: str) -> None:
        """Raise UsageError unless the model's task is one of `tasks`."""
        if self.task not in tasks:
            raise UsageError(f"{self.path}: this is a model for {self.task}; {' or '.join(tasks)} is needed")

    def warm(self, lengths: Iterable[int] = (8, 16, 24, 32, 48, 64, 96, 128), batch: int = 1) -> None:
        """Run each of these lengths once, so that no caller waits for the slow first run of a shape."""
        for length in sorted({min(padded_length(length), self.max_seq_len) for length in lengths}):
            ids = np.full((batch, length), self.pad_id, dtype=np.int64)
            self.run(ids, np.ones_like(ids))


def pad_types(rows: Sequence[Sequence[int]], ids: np.ndarray) -> np.ndarray:
    """Token types (B, T) of rows, 0 at padding; `ids` (B, T) gives the shape."""
    types = np.zeros_like(ids)
    for index, row in enumerate(rows):
        types[index, : len(row)] = row
    return types


def token_budget_batches(lengths: list[int], batch_tokens: int) -> Iterator[list[int]]:
    """Indices of rows, longest first, cut so that each padded batch stays within the budget."""
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    first = 0
    while first < len(order):
        rows = max(1, batch_tokens // padded_length(lengths[order[first]]))
        yield order[first : first + rows]
        first += rows


def run_batches(streams: int, work: Callable[[list[int]], None], batches: Iterable[list[int]]) -> None:
    """Run `work` on all batches, `streams` of them in parallel; the first error is raised."""
    if streams == 1:
        for batch in batches:
            work(batch)
        return
    pool = ThreadPoolExecutor(streams)
    try:
        for _ in pool.map(work, batches):
            pass
    finally:
        pool.shutdown(cancel_futures=True)


def give_back_memory() -> None:
    """Return freed memory to the system after loading; does nothing if the C library lacks `malloc_trim`."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
