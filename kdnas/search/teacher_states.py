"""The teacher's hidden states of the proxy set: computed once, kept as float16 beside the search while it runs."""

import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from kdnas.distill.batches import to_tensors
from kdnas.distill.hidden_state import TeacherStates
from kdnas.store.json_files import write_json
from kdnas.text.sentences import Sentences, token_batches

BATCH_TOKENS = 4096  # per teacher pass; without gradients, larger batches fit than in training
SAVED_EVERY = 16  # batches between two checkpoints; an interrupted computation resumes at the last one
BYTES = 2  # float16
VARIANCE_TOKENS = 50_000  # used to measure the variance of a layer


@dataclass(frozen=True)
class Subset:
    """Some sentences of a split, with their indices in the split, (N,) int64."""

    sentences: Sentences
    numbers: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each sentence, (N,)."""
        return self.sentences.lengths[self.numbers]

    def batch(self, indices: np.ndarray, pad_id: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """Padded ids and mask, (B, T), of the sentences at these indices of the subset."""
        return to_tensors(self.sentences, self.numbers[indices], pad_id, device)


def cache_bytes(tokens: int, layers: Iterable[int], hidden: int) -> int:
    """Disk space for the states of some layers: tokens x layers x width x 2 bytes."""
    return tokens * len(set(layers)) * hidden * BYTES


class CachedStates:
    """States of a subset in one memory-mapped file per layer, (real tokens, D_T), in the order of the teacher's passes.

    `seconds` is the time to compute them, over all attempts.

    Args:
        folder: folder of the files; an interrupted computation is resumed.
        subset: the sentences.
        teacher: source of the states.
        layers: wanted layers, 1-based.
        pad_id: id of the padding token.
        advance: called with the tokens of each batch that was computed or found.
    """

    def __init__(
        self,
        folder: Path,
        subset: Subset,
        teacher: PreTrainedModel,
        layers: Iterable[int],
        pad_id: int,
        advance: Callable[[float], None] = lambda tokens: None,
    ) -> None:
        self.layers, self.hidden = sorted(set(layers)), int(teacher.config.hidden_size)
        self._lengths = subset.lengths
        batches = token_batches(self._lengths, BATCH_TOKENS, seed=0, epoch=0)
        order = np.concatenate(batches)
        self._starts = np.zeros(len(order), dtype=np.int64)
        self._starts[order] = np.cumsum(self._lengths[order]) - self._lengths[order]
        folder.mkdir(parents=True, exist_ok=True)
        self._compute(folder, subset, TeacherStates(teacher, self.layers), batches, pad_id, advance)
        rows = int(self._lengths.sum())
        self.rows = {
            layer: torch.from_file(
                str(_file(folder, layer)), shared=False, size=rows * self.hidden, dtype=torch.float16
            ).view(rows, self.hidden)
            for layer in self.layers
        }

    def _compute(
        self,
        folder: Path,
        subset: Subset,
        teacher: TeacherStates,
        batches: list[np.ndarray],
        pad_id: int,
        advance: Callable[[float], None],
    ) -> None:
        mark = folder / "done.json"
        found = json.loads(mark.read_text()) if mark.exists() else {"batches": 0}
        self.seconds = float(found.get("seconds", 0.0))  # earlier versions did not measure them
        done, start = int(found["batches"]), time.monotonic() - self.seconds
        tokens = int(self._lengths[np.concatenate(batches[:done])].sum()) if done else 0
        advance(tokens)
        files = {layer: _file(folder, layer).open("ab") for layer in self.layers}
        try:
            for file in files.values():
                file.truncate(tokens * self.hidden * BYTES)  # rows beyond the mark may be torn
            for number, indices in enumerate(batches[done:], done + 1):
                ids, mask = subset.batch(indices, pad_id, teacher.device)
                for layer, states in teacher(ids, mask).items():
                    files[layer].write(states[mask.bool()].half().cpu().numpy().tobytes())
                if number % SAVED_EVERY == 0 or number == len(batches):
                    for file in files.values():
                        file.flush()
                        os.fsync(file.fileno())
                    self.seconds = time.monotonic() - start
                    write_json(mark, {"batches": number, "seconds": self.seconds})
                advance(int(self._lengths[indices].sum()))
        finally:
            for file in files.values():
                file.close()

    def variance(self, layers: Sequence[int], limit: int = VARIANCE_TOKENS) -> dict[int, float]:
        """Variance of each layer over the first `limit` tokens, averaged over dimensions."""
        return {layer: float(self.rows[layer][:limit].float().var(0, unbiased=False).mean()) for layer in layers}

    def __call__(self, indices: np.ndarray, mask: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
        """States of some layers, 1-based, each (B, T, D_T) float16, zeros at padding.

        Args:
            indices: (B,) indices in the subset.
            mask: (B, T), 1 at real tokens; decides width and device.
            layers: wanted layers.
        """
        wanted = np.concatenate([np.arange(self._starts[p], self._starts[p] + self._lengths[p]) for p in indices])
        index, real = torch.from_numpy(wanted), mask.bool()
        found = {}
        for layer in layers:
            states = torch.zeros(*mask.shape, self.hidden, dtype=torch.float16, device=mask.device)
            states[real] = self.rows[layer][index].to(mask.device)
            found[layer] = states
        return found


def _file(folder: Path, layer: int) -> Path:
    return folder / f"layer-{layer}.f16"
