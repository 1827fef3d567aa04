"""Deterministic samples of the sentences of a source, spread over the whole source."""

import hashlib
import heapq
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from kdnas.text.pydocs import docstring_sentences, source_files
from kdnas.text.readers import TextRow

Row = TypeVar("Row")


def number_of(text: str) -> int:
    """A pseudo-random number that depends only on the text, independent of the hash that decides its split."""
    return int.from_bytes(hashlib.sha256(b"sample " + text.encode("utf-8", "surrogatepass")).digest()[:8], "big")


def spread_rows(rows: Iterable[TextRow], count: int) -> Iterator[TextRow]:
    """The `count` rows whose texts have the smallest numbers, plus the first row of each missing language, in input order.

    Args:
        rows: unique rows; all are read, but only `count` rows and one row per language are in memory.
        count: number of rows; if there are fewer, all are returned.
    """
    taken: list[tuple[int, int, TextRow]] = []  # numbers are negated, so that the largest is first in the min-heap
    first: dict[str, tuple[int, TextRow]] = {}
    for index, row in enumerate(rows):
        first.setdefault(row.language, (index, row))
        entry = (-number_of(row.text), index, row)
        if len(taken) < count:
            heapq.heappush(taken, entry)
        elif entry[0] > taken[0][0]:
            heapq.heapreplace(taken, entry)
    present = {row.language for _, _, row in taken}
    chosen = [(index, row) for _, index, row in taken]
    chosen += [found for language, found in first.items() if language not in present]
    yield from (row for _, row in sorted(chosen))


class SpreadByLanguage(Generic[Row]):
    """The rows of each language whose texts have the smallest numbers: a random sample of a file that is read once.

    Args:
        most: maximum rows of each language; no others are kept in memory.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: dict[
            str, list[tuple[int, int, Row]]
        ] = {}  # numbers and positions are negated: the largest is first
        self._read = 0

    def add(self, language: str, text: str, row: Row) -> None:
        """Read the next row.

        Args:
            language: its language.
            text: its text, which decides whether it is in the sample.
            row: the row.
        """
        taken = self._taken.setdefault(language, [])
        self._read += 1
        entry = (-number_of(text), -self._read, row)
        if len(taken) < self._most:
            heapq.heappush(taken, entry)
        elif entry[:2] > taken[0][:2]:
            heapq.heapreplace(taken, entry)

    def rows(self) -> list[Row]:
        """The sample, in the order in which it was read."""
        found = [(-position, row) for taken in self._taken.values() for _, position, row in taken]
        return [row for _, row in sorted(found, key=lambda one: one[0])]


def spread_sentences() -> Iterator[TextRow]:
    """Sentences of docstrings, file by file, in an order that mixes all packages; files are read only when they are reached."""
    files = sorted(source_files(), key=lambda found: number_of(found[2]))
    return (TextRow(*row) for row in docstring_sentences(files))
