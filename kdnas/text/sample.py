"""Some sentences of a source, always the same ones, spread over all of it."""

import hashlib
import heapq
from collections.abc import Iterable, Iterator

from kdnas.text.pydocs import docstring_sentences, source_files
from kdnas.text.readers import Row


def number_of(text: str) -> int:
    """A number that looks random and depends on the text alone; another one than that which decides its split."""
    return int.from_bytes(hashlib.sha256(b"sample " + text.encode("utf-8", "surrogatepass")).digest()[:8], "big")


def spread_rows(rows: Iterable[Row], count: int) -> Iterator[Row]:
    """The `count` rows whose texts have the smallest numbers, in the order of `rows`; and the first of each other language.

    Args:
        rows: unique ones; all are read, `count` and one a language are in memory.
        count: how many; of fewer rows all are taken.
    """
    taken: list[tuple[int, int, Row]] = []  # the largest number first, as a heap has the smallest there
    first: dict[str, tuple[int, Row]] = {}
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


def spread_sentences() -> Iterator[Row]:
    """Sentences of docstrings, file by file, in an order that mixes all packages; only files that are reached are read."""
    files = sorted(source_files(), key=lambda found: number_of(found[2]))
    return (Row(*row) for row in docstring_sentences(files))
