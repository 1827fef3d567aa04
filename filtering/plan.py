"""Units of a filter run: which part of which files each one covers. Planned once, and kept in blocks of 1000 units."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice, pairwise
from typing import Any
from uuid import uuid4

from kdnas.errors import KdnasError, UsageError
from kdnas.extras import require_extras
from kdnas.filtering.inputs import InputFile, opened
from kdnas.filtering.store import Store, create_json, read_json
from kdnas.text.parquet import open_parquet

PLAN, FOLDER = "plan.json", "plan"
BLOCK_UNITS = 1000  # units whose plan, commits and outputs are in one folder
EXPANSION = 4  # decompressed bytes per compressed byte, roughly, to group small archives
GROUPED_FILES = 1000  # files in a unit of small files


@dataclass(frozen=True)
class Segment:
    """A part of one file: the lines that start in a range of bytes, or some row groups.

    Args:
        file: the file.
        start: first byte of the range, or first row group.
        end: end of the range, or of the row groups; of an archive, 0: always the whole.
    """

    file: InputFile
    start: int
    end: int


@dataclass(frozen=True)
class Unit:
    """The part of the input that one worker scores and commits as a whole. All its files have one kind and compression.

    Args:
        number: index of the unit in the plan.
        segments: parts of files, in order.
    """

    number: int
    segments: tuple[Segment, ...]

    @property
    def suffix(self) -> str:
        """Suffix of its output files."""
        return self.segments[0].file.suffix

    @property
    def bytes(self) -> int:
        """Bytes of the input files, for the progress; of a Parquet file, its part by row groups."""
        return sum(
            segment.file.size
            if segment.file.compression or segment.file.kind == "parquet"
            else segment.end - segment.start
            for segment in self.segments
        )

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def parse(cls, row: dict[str, Any]) -> "Unit":
        """The unit of a line of the plan."""
        segments = [Segment(InputFile(**one["file"]), one["start"], one["end"]) for one in row["segments"]]
        return cls(row["number"], tuple(segments))


def cut_units(files: Iterable[InputFile], unit_bytes: int) -> Iterator[Unit]:
    """Units of about `unit_bytes` uncompressed bytes; empty files are left out.

    Large files are cut at line ends or row groups, small ones of one kind are grouped; an archive is never cut.
    """
    number = 0
    group: list[Segment] = []
    size = 0
    for segment, weight in _segments(files, unit_bytes):
        alone = segment.file.kind == "parquet"
        full = size + weight > unit_bytes or len(group) == GROUPED_FILES
        if group and (alone or full or segment.file.suffix != group[0].file.suffix or group[0].file.kind == "parquet"):
            yield Unit(number, tuple(group))
            number, group, size = number + 1, [], 0
        group.append(segment)
        size += weight
    if group:
        yield Unit(number, tuple(group))


def _segments(files: Iterable[InputFile], unit_bytes: int) -> Iterator[tuple[Segment, int]]:
    """Segments and their uncompressed bytes."""
    for file in files:
        if file.size == 0:
            continue
        if file.kind == "parquet":
            yield from _row_groups(file, unit_bytes)
        elif file.compression:
            yield Segment(file, 0, 0), file.size * EXPANSION
        else:
            parts = max(1, round(file.size / unit_bytes))
            edges = [file.size * part // parts for part in range(parts + 1)]
            for start, end in pairwise(edges):
                yield Segment(file, start, end), end - start


def _row_groups(file: InputFile, unit_bytes: int) -> Iterator[tuple[Segment, int]]:
    require_extras(f"input '{file.url}'", ("parquet",))
    with opened(file) as stream:
        try:
            meta = open_parquet(stream, f"input '{file.url}'").metadata
        except UsageError:  # its unit reports the damage, and the other files are filtered
            yield Segment(file, 0, 0), unit_bytes
            return
    first, size = 0, 0
    for index in range(meta.num_row_groups):
        weight = meta.row_group(index).total_byte_size
        if index > first and size + weight > unit_bytes:
            yield Segment(file, first, index), size
            first, size = index, 0
        size += weight
    if meta.num_row_groups:
        yield Segment(file, first, meta.num_row_groups), size


def write_plan(store: Store, units: Iterable[Unit]) -> None:
    """Write the plan, all or nothing; the one that another process wrote meanwhile is kept.

    The blocks lie in a folder of their own, and the file `plan.json`, which is created last, names the folder that counts.
    """
    folder = f"{FOLDER}/{uuid4().hex}"
    number = 0
    iterator = iter(units)
    while block := list(islice(iterator, BLOCK_UNITS)):
        lines = "".join(json.dumps(unit.as_json()) + "\n" for unit in block)
        store.write(f"{folder}/{block_name(number)}.jsonl", lines.encode())
        number += 1
    create_json(store, PLAN, {"folder": folder, "blocks": number})
    if read_json(store, PLAN)["folder"] != folder:
        store.remove(folder)


@dataclass(frozen=True)
class Plan:
    """The units of a run, in blocks.

    Args:
        store: the run's output.
        folder: folder of the blocks.
        count: number of blocks.
    """

    store: Store
    folder: str
    count: int

    @property
    def blocks(self) -> range:
        """Numbers of the blocks."""
        return range(self.count)

    def block(self, number: int) -> list[Unit]:
        """The units of one block."""
        data = self.store.read(f"{self.folder}/{block_name(number)}.jsonl")
        if data is None:
            raise KdnasError(f"output '{self.store.url}': {self.folder} is damaged; filter into another --output")
        return [Unit.parse(json.loads(line)) for line in data.splitlines()]

    def units(self) -> Iterator[Unit]:
        """All units, in order."""
        for number in self.blocks:
            yield from self.block(number)


def read_plan(store: Store) -> Plan | None:
    """The plan of a run; None if it is not planned yet."""
    found = read_json(store, PLAN)
    return None if found is None else Plan(store, found["folder"], found["blocks"])


def block_name(block: int) -> str:
    """Name of the folder or file of a block."""
    return f"{block:05d}"
