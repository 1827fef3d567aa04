"""The output of a filter run: plan, commit records, and files that count only once their unit is committed.

run.json                the configuration
gate.json               the gate, if one is used
plan.json, plan/        the units in blocks of 1000
commits/00000/          one record for each committed unit of the block: its files with hashes, and its counts
commits/00000.json      the sum of a block whose units are all committed: such a block is not looked at again
work/                   files of units in progress; removed at the end
kept/00000/part-*       and dropped/, quarantine/, scores/: the result
"""

import json
from collections.abc import Collection, Iterator
from functools import cached_property
from typing import Any

from kdnas.errors import KdnasError
from kdnas.filtering.plan import BLOCK_UNITS, FOLDER, Plan, Unit, block_name, read_plan
from kdnas.filtering.store import Store, create_json, read_json
from kdnas.filtering.totals import added

RUN = "run.json"
COMMITS, WORK = "commits", "work"
FATES = ("kept", "dropped", "quarantine", "scores")


class RunFolder:
    """The output of a run.

    Args:
        store: where it is.
        labels: labels that the run scores.
    """

    def __init__(self, store: Store, labels: list[str]) -> None:
        self.store, self.labels = store, labels

    @cached_property
    def plan(self) -> Plan:
        """The units of the run.

        Raises:
            KdnasError: it is not planned yet.
        """
        found = read_plan(self.store)
        if found is None:
            raise KdnasError(f"output '{self.store.url}': the run is not planned yet; run the same command again")
        return found

    def commit_name(self, unit: int) -> str:
        """Name of the commit record of a unit."""
        return f"{COMMITS}/{block_name(unit // BLOCK_UNITS)}/{unit:07d}.json"

    def committed(self, unit: int) -> dict[str, Any] | None:
        """The commit record of a unit; None if it is not committed."""
        found: dict[str, Any] | None = read_json(self.store, self.commit_name(unit))
        return found

    def commit(self, unit: int, pieces: list[dict[str, Any]]) -> dict[str, Any]:
        """Commit a unit whose files are durable, and give them their names; returns the record that counts.

        If another worker was faster, its record counts and the files of this one are never used.
        """
        files = {name: row for piece in pieces for name, row in piece["files"].items()}
        record = {"unit": unit, "files": files, "totals": added((piece["totals"] for piece in pieces), self.labels)}
        found = self._created(self.commit_name(unit), record)
        self.settle(found)
        block = unit // BLOCK_UNITS
        if len(self._committed_units(block)) == BLOCK_UNITS:
            self._seal(block, BLOCK_UNITS)
        return found

    def settle(self, record: dict[str, Any], leftover: Collection[str] | None = None) -> None:
        """Move the files of a committed unit from `work/` to their names; a worker may have died before it did.

        Args:
            record: commit record of the unit.
            leftover: names in `work/`, to move only these; None tries all.
        """
        for name, row in record["files"].items():
            if leftover is None or row["scratch"] in leftover:
                self.store.move(f"{WORK}/{row['scratch']}", name)

    def pieces(self, unit: int, again: bool = False) -> list[dict[str, Any]]:
        """Finished pieces of a unit in progress, in order; with `again`, those of its second scoring."""
        return [json.loads(data) for _, data in sorted(self.store.read_all(_pieces(unit, again)).items())]

    def keep_piece(self, unit: int, number: int, piece: dict[str, Any], again: bool = False) -> dict[str, Any]:
        """Record a finished piece, whose files are durable; returns the record that counts."""
        return self._created(f"{_pieces(unit, again)}/{number:05d}.json", piece)

    def open_blocks(self) -> list[int]:
        """Numbers of the blocks that are not sealed."""
        sealed = set(self.store.names(COMMITS))
        return [block for block in self.plan.blocks if f"{block_name(block)}.json" not in sealed]

    def missing(self, index: int = 0, count: int = 1) -> Iterator[Unit]:
        """Units that are not committed, of the shard `index` of `count`. It reads the blocks that are not sealed only."""
        for block in self.open_blocks():
            done = self._committed_units(block)
            for unit in self.plan.block(block):
                if unit.number % count == index and unit.number not in done:
                    yield unit

    def seal(self) -> list[int]:
        """Sum up the blocks whose units are all committed; returns the numbers of the other blocks."""
        return [block for block in self.open_blocks() if not self._seal(block, len(self.plan.block(block)))]

    def totals(self) -> dict[str, Any]:
        """Sum over all committed units."""
        opened = set(self.open_blocks())
        parts = []
        for block in self.plan.blocks:
            if block in opened:
                parts += [record["totals"] for record in self._records(block)]
            else:
                parts.append(read_json(self.store, self.seal_name(block))["totals"])
        return added(parts, self.labels)

    def seal_name(self, block: int) -> str:
        """Name of the sum of a block."""
        return f"{COMMITS}/{block_name(block)}.json"

    def clear(self) -> None:
        """Remove what units in progress and lost plans left. Call it when every unit is committed and settled."""
        self.store.remove(WORK)
        for name in self.store.names(FOLDER):
            if f"{FOLDER}/{name}" != self.plan.folder:
                self.store.remove(f"{FOLDER}/{name}")

    def _created(self, name: str, record: dict[str, Any]) -> dict[str, Any]:
        """Create a record unless there is one; returns the one that counts."""
        create_json(self.store, name, record)
        found: dict[str, Any] | None = read_json(self.store, name)
        return record if found is None else found  # None: another process has just finished the run

    def _committed_units(self, block: int) -> set[int]:
        return {int(name.removesuffix(".json")) for name in self.store.names(f"{COMMITS}/{block_name(block)}")}

    def _records(self, block: int) -> list[dict[str, Any]]:
        """The commit records of a block, in order."""
        found = self.store.read_all(f"{COMMITS}/{block_name(block)}")
        return [json.loads(data) for _, data in sorted(found.items())]

    def _seal(self, block: int, units: int) -> bool:
        """Sum up a block; returns False if fewer than `units` units are committed."""
        records = self._records(block)
        if len(records) < units:
            return False
        leftover = set(self.store.names(WORK))
        for record in records:
            self.settle(record, leftover)
        totals = added((record["totals"] for record in records), self.labels)
        create_json(self.store, self.seal_name(block), {"units": units, "totals": totals})
        return True


def _pieces(unit: int, again: bool) -> str:
    return f"{WORK}/{unit:07d}" + ("-again" if again else "")
