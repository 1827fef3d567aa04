"""Labelled inputs, as columns."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Answers:
    """The right answers to a question.

    Args:
        texts: the right answers.
        start: index of the first answer's first character in the context.
    """

    texts: tuple[str, ...]
    start: int


@dataclass(frozen=True)
class Split:
    """Labelled inputs.

    Args:
        texts: texts; pairs of texts; lists of words; or pairs of a question and its context.
        labels: class numbers; numbers; lists of class numbers; or `Answers`.
        languages: language of each input; empty if all have the same.
        groups: group of each input, for example the topic of an insult; empty without groups.
    """

    texts: list[Any]
    labels: list[Any]
    languages: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.texts)

    def first(self, count: int) -> "Split":
        """The first `count` rows."""
        return self.rows(range(min(count, len(self))))

    def rows(self, indices: Sequence[int]) -> "Split":
        """The rows at these indices, in this order."""
        columns = (self.texts, self.labels, self.languages, self.groups)
        return Split(*([column[index] for index in indices] if column else [] for column in columns))
