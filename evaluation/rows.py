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
        pairs: number that an input and its translations have in common; empty if inputs are not translations.
    """

    texts: list[Any]
    labels: list[Any]
    languages: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    pairs: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.texts)

    def first(self, count: int) -> "Split":
        """The first `count` rows."""
        return self.rows(range(min(count, len(self))))

    def rows(self, indices: Sequence[int]) -> "Split":
        """The rows at these indices, in this order."""
        columns = (self.texts, self.labels, self.languages, self.groups, self.pairs)
        return Split(*([column[index] for index in indices] if column else [] for column in columns))

    def joined(self, other: "Split") -> "Split":
        """The rows of both, which have the same columns."""
        names = ("texts", "labels", "languages", "groups", "pairs")
        return Split(*([*getattr(self, name), *getattr(other, name)] for name in names))
