"""The batches of a training stage: order of the sentences, single sentences or pairs, and resumption at any batch."""

import signal
from collections.abc import Iterator
from itertools import count, islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from kdnas.distill.options import LoopOptions
from kdnas.distill.pairs import Pairs, pair_batch
from kdnas.text.sentences import Sentences, balanced, token_batches

Batch = tuple[Tensor, Tensor]  # ids and mask, each (B, T)
Position = tuple[int, int]  # epoch, and index of the batch in it
Key = tuple[Position, Position, np.ndarray]  # positions of the batch and of its update's last batch, sentence indices


class Made(NamedTuple):
    """A batch: padded ids and mask (B, T), token types for pairs, and the position of the last batch of its update."""

    epoch: int
    batch: int
    ids: Tensor
    mask: Tensor
    types: Tensor | None = None

    def inputs(self, device: torch.device | str) -> tuple[Tensor, Tensor, Tensor | None]:
        """Ids, mask and token types on a device, in the form that objectives take."""
        return self.ids.to(device), self.mask.to(device), None if self.types is None else self.types.to(device)


def to_tensors(sentences: Sentences, indices: np.ndarray, pad_id: int, device: torch.device | str = "cpu") -> Batch:
    """Padded ids and mask (B, T) of some sentences on a device."""
    ids, mask = sentences.batch(indices, pad_id)
    return torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device)


class TrainBatches(Dataset[Made]):
    """Every batch is a function of the seed, the epoch and its index only, so resumed runs see the same batches.

    Args:
        sentences: training split.
        pad_id: id of the padding token.
        options: batch size, fraction of pairs, seed, data workers.
        pairs: how sentences are joined to pairs; may be None if `pair_fraction` is 0.
        process: index of this process and number of processes; each gets the same number of an update's batches.
        partners: (N,) number of each sentence's partner. Half of each batch's sentences are then replaced by the partners of
            the other half, in the same order (`kdnas.distill.contrast`).
    """

    def __init__(
        self,
        sentences: Sentences,
        pad_id: int,
        options: LoopOptions,
        pairs: Pairs | None,
        process: tuple[int, int] = (0, 1),
        partners: np.ndarray | None = None,
    ) -> None:
        self._sentences, self._pad_id, self._options, self._pairs = sentences, pad_id, options, pairs
        self._process, self._processes = process
        self._partners = partners

    def epoch(self, number: int) -> list[np.ndarray]:
        """Sentence numbers of each batch of an epoch."""
        options, sentences = self._options, self._sentences
        lengths, chosen = sentences.lengths, None
        power = 1.0 if options.language_power is None else options.language_power
        if power < 1:
            rng = np.random.default_rng([options.seed, number, 2])
            chosen = balanced(sentences.language_numbers, power, rng)
            lengths = lengths[chosen]
        batches = token_batches(lengths, options.batch_tokens, options.seed, number, most=options.batch_sentences)
        return batches if chosen is None else [chosen[batch] for batch in batches]

    def __getitem__(self, key: Key) -> Made:
        here, last, indices = key
        if self._partners is not None:
            half = indices[: (len(indices) + 1) // 2]
            return Made(*last, *to_tensors(self._sentences, np.r_[half, self._partners[half]], self._pad_id))
        rng = np.random.default_rng([self._options.seed, *here])
        if rng.random() < self._options.pair_fraction:
            assert self._pairs is not None
            arrays = pair_batch(self._sentences, indices, self._pad_id, self._pairs, rng)
            return Made(*last, *map(torch.from_numpy, arrays))
        return Made(*last, *to_tensors(self._sentences, indices, self._pad_id))

    def after(self, epoch: int, index: int) -> Iterator[Made]:
        """Endless batches of this process from a position; data workers, if any, prepare them ahead."""
        loader: DataLoader[Any] = DataLoader(
            self,
            batch_size=None,
            sampler=self._keys(epoch, index),
            num_workers=self._options.data_workers,
            worker_init_fn=_leave_signals,
            # Not forked, so that workers do not inherit threads, locks and signal handlers of this process.
            multiprocessing_context="spawn" if self._options.data_workers else None,
            generator=torch.Generator(),  # a separate generator, so that torch's default one is used only by dropout
        )
        return iter(loader)

    def _keys(self, epoch: int, index: int) -> Iterator[Key]:
        coming = self._positions(epoch, index)
        while update := list(islice(coming, self._options.accumulate)):
            last = update[-1][0]
            yield from ((here, last, indices) for here, indices in update[self._process :: self._processes])

    def _positions(self, epoch: int, index: int) -> Iterator[tuple[Position, np.ndarray]]:
        for number in count(epoch):
            batches = self.epoch(number)
            for here in range(index, len(batches)):
                yield (number, here), batches[here]
            index = 0


def _leave_signals(_worker: int) -> None:
    """Ignore Ctrl-C in a worker, and reset SIGTERM: the main process handles signals, and the loader ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
