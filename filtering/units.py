"""Scores and writes units one after the other. A unit that fails is left out, and the others are still finished."""

import errno
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from kdnas.errors import KdnasError
from kdnas.filtering.ahead import ByteLimit, ahead
from kdnas.filtering.commits import RunFolder
from kdnas.filtering.decision import Policy
from kdnas.filtering.options import FilterOptions
from kdnas.filtering.pieces import PieceWriter
from kdnas.filtering.plan import Unit
from kdnas.filtering.reading import Chunk, read_chunks
from kdnas.filtering.scoring import ScoredChunk
from kdnas.filtering.store import StoreError
from kdnas.filtering.totals import AGAIN, added
from kdnas.store.progress import say

SHOWN = 5
BYTES_AHEAD = 2**23  # with so many bytes of chunks that are read and not written yet, reading waits
# Scores chunks, in order: the model's scores, or recorded ones.
Score = Callable[[Unit, Iterable[Chunk]], Iterator[ScoredChunk]]
Note = Callable[[dict[str, Any]], None]  # is called with the totals of the piece in progress


@dataclass(frozen=True)
class Scoring:
    """How units are scored.

    Args:
        score: scores chunks.
        again: scores the chunks of a unit for which the scores of `score` do not do.
        is_beyond: whether they do not, from what the gate did in the unit; without it, they always do.
    """

    score: Score
    again: Score | None = None
    is_beyond: Callable[[dict[str, list[int]]], bool] = lambda gate: False


def filter_unit(
    folder: RunFolder,
    unit: Unit,
    scoring: Scoring,
    policy: Policy,
    options: FilterOptions,
    note: Note = lambda totals: None,
) -> dict[str, Any]:
    """Score, write and commit one unit; returns its commit record.

    A unit that is longer than planned, a large archive, is written in pieces, and resumes after the last one.

    Raises:
        KdnasError: a file has changed or cannot be read, or the scores are wrong.
    """
    if (found := folder.committed(unit.number)) is not None:
        folder.settle(found)
        return found
    pieces = _pieces(folder, unit, scoring.score, policy, options, note, again=False)
    totals = added((piece["totals"] for piece in pieces), policy.labels)
    if scoring.again is not None and scoring.is_beyond(totals["gate"]):
        say(
            f"filter: unit {unit.number}: its audit is beyond the bound of the gate, so it is scored again without the gate"
        )
        pieces = _pieces(folder, unit, scoring.again, policy, options, note, again=True)
        last = pieces[-1]["totals"]
        last[AGAIN], last["seconds"] = 1, last["seconds"] + totals["seconds"]
    return folder.commit(unit.number, pieces)


def _pieces(
    folder: RunFolder, unit: Unit, score: Score, policy: Policy, options: FilterOptions, note: Note, again: bool
) -> list[dict[str, Any]]:
    """Score and write the pieces of a unit that are missing; returns the records of all."""
    pieces = folder.pieces(unit.number, again)
    writer: PieceWriter | None = None
    limit = ByteLimit(BYTES_AHEAD)
    chunks = ahead(score(unit, limit.enter(read_chunks(unit, options, len(pieces)))))
    try:
        for scored in chunks:
            if writer is not None and scored.chunk.piece != writer.piece:
                pieces.append(folder.keep_piece(unit.number, writer.piece, writer.finish(), again))
                writer = None
            writer = writer or PieceWriter(folder, unit, scored.chunk.piece, policy, options.mode)
            writer.write(scored)
            note(writer.totals)
            limit.leave(scored.chunk.bytes)
            del scored  # the next one may take as much memory
        if writer is not None:
            pieces.append(writer.finish())
    except BaseException:
        if writer is not None:
            writer.abandon()
        raise
    finally:
        limit.close()
        chunks.close()  # type: ignore[attr-defined]
    return pieces


def attempt_unit(
    folder: RunFolder,
    unit: Unit,
    scoring: Scoring,
    policy: Policy,
    options: FilterOptions,
    note: Note = lambda totals: None,
) -> dict[str, Any] | str:
    """As `filter_unit`; the message if the unit fails for a reason that another unit need not share."""
    try:
        return filter_unit(folder, unit, scoring, policy, options, note)
    except StoreError:
        raise
    except KdnasError as error:
        return str(error)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EACCES, errno.EROFS):
            raise
        return f"unit {unit.number} ({unit.segments[0].file.url}): {error}"


class Failures:
    """Messages of the units that failed."""

    def __init__(self) -> None:
        self._messages: list[str] = []

    def add(self, message: str) -> None:
        """Remember and report a message."""
        self._messages.append(message)
        say(f"filter: {message}")

    def require_none(self) -> None:
        """Raise KdnasError if units failed."""
        if self._messages:
            reasons = "; ".join(list(dict.fromkeys(self._messages))[:SHOWN])
            raise KdnasError(
                f"{len(self._messages)} units failed, all others are finished: {reasons}; then run the same command again"
            )


class Speed:
    """Documents and tokens per second since the start, for the progress line."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._done = {"documents": 0, "tokens": 0, "dropped": 0}

    def add(self, totals: dict[str, Any]) -> None:
        """Count a finished unit."""
        for name in self._done:
            self._done[name] += totals[name]

    def line(self, now: dict[str, Any] | None = None) -> str:
        """The line, with the totals of the piece in progress."""
        sums = {name: value + (now[name] if now else 0) for name, value in self._done.items()}
        seconds = time.monotonic() - self._start
        return f"{rate(sums, seconds)}, {sums['dropped']} dropped"


def rate(totals: dict[str, Any], seconds: float) -> str:
    """Documents and tokens per second; documents alone where no model ran."""
    names = {"documents": "docs/s", "tokens": "tokens/s"}
    return ", ".join(f"{totals[name] / max(seconds, 1e-9):.0f} {unit}" for name, unit in names.items() if totals[name])
