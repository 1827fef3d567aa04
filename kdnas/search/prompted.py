"""The sentences of a split with a model's prompts, for which the teacher's states can be cached."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from kdnas.distill.prompting import Prompting
from kdnas.text.sentences import Sentences


@dataclass(frozen=True)
class PromptedSentences(Sentences):
    """A split whose sentences have a prompt: sentence i has the prompt of number i, modulo the number of prompts."""

    prompting: Prompting

    def __reduce__(self) -> tuple[type["PromptedSentences"], tuple[Path, str, Prompting]]:  # type: ignore[override]
        return PromptedSentences, (self.path, self.split, self.prompting)

    @cached_property
    def _lengths(self) -> np.ndarray:
        return self.prompting.lengths(np.diff(self.offsets))

    @property
    def lengths(self) -> np.ndarray:
        """Number of tokens in each sentence with its prompt, (N,)."""
        return self._lengths

    def __getitem__(self, index: int) -> np.ndarray:
        return self.prompting.row(super().__getitem__(index), index)
