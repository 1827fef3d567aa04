"""The output folder of a filter run: plan, commit records, and files that count only once their unit is committed.

run.json                the configuration
gate.json               the gate, if one is used
plan/00000.jsonl        the units of a block of 1000
commits/00000/          one record for each committed unit of the block: its files with hashes, and its counts
commits/00000.json      the sum of a block whose units are all committed
work/                   files of units in progress; removed at the end
kept/00000/part-*       and dropped/, quarantine/, scores/: the result
"""

import errno
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

from kdnas.errors import KdnasError
from kdnas.filtering.plan import BLOCK_UNITS, Unit, block_name, blocks_of, read_block
from kdnas.filtering.totals import added
from kdnas.store.artifact import fsync_folder

RUN = "run.json"
FATES = ("kept", "dropped", "quarantine", "scores")


def create_once(path: Path, value: Any) -> bool:
    """Write a JSON file unless it exists; whole and durable, or not at all. False if it existed, also by a race.

    Raises:
        KdnasError: the file system has no hard links.
    """
    scratch = path.with_name(f"{path.name}.{uuid4().hex}.tmp")
    with scratch.open("w") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(scratch, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            raise
        raise KdnasError(
            f"output '{path.parent}': this file system has no hard links; give a folder on another one"
        ) from error
    finally:
        scratch.unlink()
    fsync_folder(path.parent)
    return True


def read_json(path: Path) -> Any:
    """The value of a JSON file that was written by `create_once`."""
    return json.loads(path.read_text())


class RunFolder:
    """The output folder of a planned run.

    Args:
        path: the folder.
        labels: labels that the run scores.
    """

    def __init__(self, path: Path, labels: list[str]) -> None:
        self.path, self.labels = path, labels
        for name in ("commits", "work"):
            (path / name).mkdir(exist_ok=True)

    @property
    def plan(self) -> Path:
        return self.path / "plan"

    def commit_path(self, unit: int) -> Path:
        return self.path / "commits" / block_name(unit // BLOCK_UNITS) / f"{unit:07d}.json"

    def committed(self, unit: int) -> dict[str, Any] | None:
        """The commit record of a unit; None if it is not committed."""
        path = self.commit_path(unit)
        return dict(read_json(path)) if path.exists() else None

    def commit(self, unit: int, pieces: list[dict[str, Any]]) -> dict[str, Any]:
        """Commit a unit whose files are durable, and move them to their names; returns the record that counts.

        If another worker was faster, its record counts and the files of this one are never used.
        """
        path = self.commit_path(unit)
        path.parent.mkdir(parents=True, exist_ok=True)
        files = {name: row for piece in pieces for name, row in piece["files"].items()}
        record = {"unit": unit, "files": files, "totals": added((piece["totals"] for piece in pieces), self.labels)}
        create_once(path, record)
        found = dict(read_json(path))
        self.settle(found)
        return found

    def settle(self, record: dict[str, Any]) -> None:
        """Move the files of a committed unit from `work/` to their names; a worker may have died before it did."""
        folders = set()
        for name, row in record["files"].items():
            final, scratch = self.path / name, self.path / "work" / row["scratch"]
            if not scratch.exists():
                continue
            final.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.replace(scratch, final)
            except FileNotFoundError:
                continue  # another process moves the same file
            folders.add(final.parent)
        for folder in folders:
            fsync_folder(folder)

    def pieces(self, unit: int, again: bool = False) -> list[dict[str, Any]]:
        """Finished pieces of a unit in progress, in order; with `again`, those of its second scoring."""
        folder = self._pieces(unit, again)
        found: list[dict[str, Any]] = []
        while (path := folder / f"{len(found):05d}.json").exists():
            found.append(dict(read_json(path)))
        return found

    def keep_piece(self, unit: int, number: int, piece: dict[str, Any], again: bool = False) -> dict[str, Any]:
        """Record a finished piece, whose files are durable; returns the record that counts."""
        path = self._pieces(unit, again) / f"{number:05d}.json"
        path.parent.mkdir(exist_ok=True)
        create_once(path, piece)
        return dict(read_json(path))

    def open_blocks(self) -> list[int]:
        """Numbers of the blocks that are not sealed."""
        return [block for block in blocks_of(self.plan) if not self._seal(block).exists()]

    def missing(self, index: int = 0, count: int = 1) -> Iterator[Unit]:
        """Units that are not committed, of the shard `index` of `count`. It reads the blocks with missing units only."""
        for block in self.open_blocks():
            folder = self.path / "commits" / block_name(block)
            done = set(os.listdir(folder)) if folder.is_dir() else set()
            for unit in read_block(self.plan, block):
                if unit.number % count == index and f"{unit.number:07d}.json" not in done:
                    yield unit

    def seal(self) -> list[int]:
        """Sum up the blocks whose units are all committed; returns the numbers of the other blocks."""
        left = []
        for block in self.open_blocks():
            units = read_block(self.plan, block)
            records = [self.committed(unit.number) for unit in units]
            whole = [record for record in records if record is not None]
            if len(whole) < len(units):
                left.append(block)
                continue
            for record in whole:
                self.settle(record)
            create_once(
                self._seal(block),
                {"units": len(units), "totals": added((one["totals"] for one in whole), self.labels)},
            )
        return left

    def totals(self) -> dict[str, Any]:
        """Sum over all committed units."""
        parts = []
        for block in blocks_of(self.plan):
            if self._seal(block).exists():
                parts.append(read_json(self._seal(block))["totals"])
                continue
            folder = self.path / "commits" / block_name(block)
            files = sorted(folder.glob("???????.json")) if folder.is_dir() else []
            parts += [read_json(file)["totals"] for file in files]
        return added(parts, self.labels)

    def seals(self) -> list[Path]:
        """The sums of all blocks."""
        return [self._seal(block) for block in blocks_of(self.plan)]

    def clear_work(self) -> None:
        """Remove the files that units in progress left. Call it when every unit is committed and settled."""
        shutil.rmtree(self.path / "work", ignore_errors=True)

    def _pieces(self, unit: int, again: bool) -> Path:
        return self.path / "work" / (f"{unit:07d}-again" if again else f"{unit:07d}")

    def _seal(self, block: int) -> Path:
        return self.path / "commits" / f"{block_name(block)}.json"
