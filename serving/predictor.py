"""The exported model behind `kdnas serve` and `kdnas filter`: token ids, windows of long texts, results."""

from pathlib import Path

import numpy as np

from kdnas.errors import UsageError
from kdnas.export.encoder import Encoder
from kdnas.export.session import Session
from kdnas.export.texts import TooLong

# Texts are tokenised in pieces of about this many characters: an encoding takes about 100 bytes of memory per token.
PIECE_CHARACTERS = 1_000_000


class Predictor:
    """A session and its tokenizer.

    Args:
        path: folder that `kdnas export` wrote.
        form: form of the model to run; by default the fastest.
        threads: threads that one call may use.
        verify: check the folder's files against the hashes in its manifest first.
        streams: parallel calls, as in `kdnas.export.session.Session`.

    Raises:
        UsageError: not an exported model, an unknown form, or a model for tokens, answers or regression.
        KdnasError: a file has changed since the export.
    """

    def __init__(
        self, path: Path, form: str | None = None, threads: int | None = None, verify: bool = True, streams: int = 1
    ) -> None:
        self.session = Session(path, form, threads, verify, streams=streams)
        self.session.require_task("text-classification", "feature-extraction")
        if len(self.session.labels) == 1:
            raise UsageError(f"{path}: this is a regression model; give a classifier or an encoder")
        self.name = path.resolve().name
        self.classifies = self.session.task == "text-classification"

    def encode(self, texts: list[str], too_long: TooLong) -> list[list[int]]:
        """Token ids of each text, special tokens included; `too_long` as in `kdnas.export.session.Session.encode`."""
        return self.session.encode(texts, too_long)

    def windower(self, overlap: int) -> "Windower":
        """Splitter of texts into windows of `max_seq_len` tokens; neighbours share `overlap` tokens."""
        return Windower(self.session.encoder, self.session.max_seq_len, overlap)

    def predict(self, rows: list[list[int]], batch_tokens: int) -> np.ndarray:
        """Results for rows of token ids, in the order of the rows.

        Args:
            rows: N lists of token ids, special tokens included, none longer than the session's `max_seq_len`.
            batch_tokens: maximum number of padded tokens in one call of the engine; a longer row runs alone.

        Returns:
            (N, C) softmax probabilities of a classifier, or (N, D) L2-normalised means over the tokens, float32.
        """
        return self.session.predict_ids(rows, batch_tokens)


class Windower:
    """Splits texts into windows that a model can read.

    Args:
        encoder: encoder of the model's session.
        seq_len: tokens per window, including special tokens.
        overlap: tokens shared by neighbouring windows, so that a phrase at a border is whole in one of them.
    """

    def __init__(self, encoder: Encoder, seq_len: int, overlap: int) -> None:
        self._encoder = encoder
        self._room = seq_len - len(encoder.prefix) - len(encoder.suffix)
        self._step = self._room - min(overlap, max(0, self._room - 1))

    def windows(self, texts: list[str]) -> list[list[np.ndarray]]:
        """Windows of each text: one or more int32 arrays of token ids, special tokens included in each."""
        found: list[list[np.ndarray]] = []
        first = 0
        while first < len(texts):
            last, characters = first, 0
            while last < len(texts) and (last == first or characters + len(texts[last]) <= PIECE_CHARACTERS):
                characters += len(texts[last])
                last += 1
            found += [self._split(ids) for ids in self._encoder.ids(texts[first:last])]
            first = last
        return found

    def _split(self, ids: list[int]) -> list[np.ndarray]:
        starts = range(0, max(1, len(ids) - self._room + self._step), self._step)
        around = self._encoder.prefix, self._encoder.suffix
        return [np.asarray([*around[0], *ids[at : at + self._room], *around[1]], dtype=np.int32) for at in starts]
