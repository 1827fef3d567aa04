"""An exported model behind both commands: untruncated token ids, windows of long texts, results of ids in any order."""

from pathlib import Path

import numpy as np

from kdnas.errors import UsageError
from kdnas.export.encoder import Encoder
from kdnas.export.session import Session
from kdnas.export.texts import TooLong

# Texts are tokenised in pieces of about this many characters: an encoding takes some 100 bytes a token while it lives.
PIECE_CHARACTERS = 1_000_000


class Predictor:
    """A session together with a tokenizer that does not cut.

    Args:
        path: folder that `kdnas export` wrote.
        form: one of the forms in it; by default the fastest.
        threads: threads that one call may use.
        verify: compare the folder's files with the hashes in its manifest first.
        streams: calls side by side, as of `kdnas.export.session.Session`.

    Raises:
        UsageError: not an export folder, an unknown form, or a model of tokens, answers or numbers.
        KdnasError: a file was changed since it was exported.
    """

    def __init__(
        self, path: Path, form: str | None = None, threads: int | None = None, verify: bool = True, streams: int = 1
    ) -> None:
        self.session = Session(path, form, threads, verify, streams=streams)
        self.session.require_task("text-classification", "feature-extraction")
        if len(self.session.labels) == 1:
            raise UsageError(f"{path}: a model of one number (regression); a classifier or an encoder is needed here")
        self.name = path.resolve().name
        self.classifies = self.session.task == "text-classification"

    def encode(self, texts: list[str], too_long: TooLong) -> list[list[int]]:
        """Token ids of each text, special tokens included; `too_long` as of `kdnas.export.session.Session.encode`."""
        return self.session.encode(texts, too_long)

    def windower(self, overlap: int) -> "Windower":
        """What splits texts into windows of `max_seq_len` tokens, `overlap` of them shared by neighbours."""
        return Windower(self.session.encoder, self.session.max_seq_len, overlap)

    def predict(self, rows: list[list[int]], batch_tokens: int) -> np.ndarray:
        """Results of rows of token ids, in their order whatever the batches.

        Args:
            rows: N lists of token ids, special tokens included, none longer than the session's `max_seq_len`.
            batch_tokens: padded tokens that one call of the engine may hold (a longer row still goes alone).

        Returns:
            (N, C) softmax probabilities of a classifier, or (N, D) L2-normalised means over the tokens, float32.
        """
        return self.session.predict_ids(rows, batch_tokens)


class Windower:
    """Splits texts into windows that a model can read.

    Args:
        encoder: of the model's session.
        seq_len: tokens a window, special tokens included.
        overlap: tokens that neighbouring windows share, so that no phrase is only seen cut in two.
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
