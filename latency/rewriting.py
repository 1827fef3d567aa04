"""Common parts of graph rewriting: the exported template model, the substitution of sizes, the pool of weights.

Exporting takes seconds, and quantising more, for each of 2400 architectures. Their graphs differ only in sizes and in the
number of layers. So a template of three layers, whose sizes are all different numbers, is exported once per activation, and its
graph is rewritten: sizes are replaced by number, and the middle layer is repeated. Weights come from one random pool.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdnas.errors import UsageError
from kdnas.models.arch import Arch, SearchSpace
from kdnas.models.family import shape_of, student_shape_of

# All sizes of the template differ from each other and from every rank, token type and depth.
TEMPLATE = Arch(layers=3, heads=5, hidden=70, ffn=93, activation="gelu")
TEMPLATE_VOCABULARY, TEMPLATE_POSITIONS = 101, 59
TABLE_ROWS = (TEMPLATE_VOCABULARY, TEMPLATE_POSITIONS)
SMALL_BYTES = 32 * 2**20  # vectors and scalars of the largest architecture use a fifth of it
POOL_FROM_VALUES = 20_000  # constants with at least this many values come from the pool
ALIGNMENT = 64
FIRST, MIDDLE, LAST, OUTSIDE = 0, 1, 2, -1  # the template's layers, and nodes outside all layers


@dataclass(frozen=True)
class Sizes:
    """Sizes of an architecture's graph, in the order of the template's numbers.

    Args:
        arch: depth, heads and widths.
        vocabulary: rows V of the word embeddings.
        positions: rows P of the position embeddings.
    """

    arch: Arch
    vocabulary: int
    positions: int

    @property
    def numbers(self) -> tuple[int, ...]:
        arch = self.arch
        return arch.heads, arch.hidden // arch.heads, arch.hidden, arch.ffn, self.vocabulary, self.positions


TEMPLATE_SIZES = Sizes(TEMPLATE, TEMPLATE_VOCABULARY, TEMPLATE_POSITIONS)


class WeightPool:
    """One buffer of random values that all graphs of a process take their constants from.

    It holds one embedding table for all models, of which a call reads only some rows, and one part per model that is in use at
    the same time, with its other weights, so that each model reads separate memory, as after a fresh load. The table is filled
    only as far as it is used: quantised graphs use a quarter.

    Args:
        part_bytes: bytes of each part's largest model without its embeddings.
        table_bytes: bytes of the largest embeddings.
        seed: seed of the random values.
    """

    def __init__(self, part_bytes: Sequence[int], table_bytes: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self._block = rng.standard_normal(4_000_000, dtype=np.float32) * np.float32(0.02)
        self._block[np.abs(self._block) < 1e-6] = 1e-3  # avoids denormal products, which are slow
        sizes = [SMALL_BYTES + _aligned(size) for size in part_bytes]
        self._table = self._filled = sum(sizes)
        self._values = np.empty((self._table + _aligned(table_bytes)) // 4, dtype=np.float32)
        self.bytes = self._values.view(np.uint8)
        ends = np.cumsum(sizes).tolist()
        self.parts = [PoolPart(self, end - size, end) for size, end in zip(sizes, ends, strict=True)]
        for size, end in zip(sizes, ends, strict=True):
            self._fill(end - size + SMALL_BYTES, end)

    def table(self, offset: int, size: int) -> int:
        """Position of `size` bytes of the table, `offset` bytes from its start."""
        start = self._table + offset
        if start + size > len(self.bytes):
            raise ValueError(f"{start + size - self._table} bytes of embeddings; the pool's table has less")
        if start + size > self._filled:
            end = min(_aligned(start + size), len(self.bytes))
            self._fill(self._filled, end)
            self._filled = end
        return start

    def _fill(self, start: int, end: int) -> None:
        for first in range(start // 4, end // 4, len(self._block)):
            last = min(first + len(self._block), end // 4)
            self._values[first:last] = np.roll(self._block, first // len(self._block))[: last - first]


class PoolPart:
    """One model's part of a pool: small constants are written for each graph, large ones are random slices.

    Args:
        pool: the pool.
        start: first byte.
        end: byte after the last.
    """

    def __init__(self, pool: WeightPool, start: int, end: int) -> None:
        self.pool, self.bytes = pool, pool.bytes
        self._start, self._end = start, end
        self.reset()

    def reset(self) -> None:
        """Begin another graph; the last one must not be used afterwards."""
        self._small, self._large, self._tables = self._start, self._start + SMALL_BYTES, 0

    def put(self, value: np.ndarray) -> tuple[int, int]:
        """Offset and size of a small constant, written into the buffer."""
        data = np.frombuffer(np.ascontiguousarray(value).tobytes(), dtype=np.uint8)
        offset, self._small = self._small, _aligned(self._small + len(data))
        assert self._small <= self._start + SMALL_BYTES
        self.bytes[offset : offset + len(data)] = data
        return offset, len(data)

    def take(self, size: int) -> tuple[int, int]:
        """Offset and size of a random constant that this graph does not share."""
        offset, self._large = self._large, _aligned(self._large + size)
        assert self._large <= self._end
        return offset, size

    def take_table(self, size: int) -> tuple[int, int]:
        """Offset and size of embeddings, which all graphs share."""
        offset, self._tables = self._tables, _aligned(self._tables + size)
        return self.pool.table(offset, size), size


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT


def part_bytes(arch: Arch) -> int:
    """Maximum bytes of the matrices of an architecture's layers, in float32."""
    return 4 * arch.layer_parameters + ALIGNMENT * 32 * arch.layers


def table_bytes(hidden: int, vocabulary: int, positions: int) -> int:
    """Maximum bytes of the embeddings, in float32."""
    return 4 * (vocabulary + positions + 64) * hidden + 8 * ALIGNMENT


def substitution(sizes: Sizes) -> dict[int, int]:
    """Map each size in the template to the size in the target graph.

    Raises:
        ValueError: `sizes` has fewer layers than the template.
    """
    if sizes.arch.layers < TEMPLATE.layers:
        raise ValueError(f"layers is {sizes.arch.layers}; a graph is made of at least {TEMPLATE.layers}")
    return dict(zip(TEMPLATE_SIZES.numbers, sizes.numbers, strict=True))


def block_of(layer: str | None, readers: set[int]) -> int:
    """The layer of a node: according to its name or, without a layer in the name, to its readers.

    Args:
        layer: number of the layer in the node's name.
        readers: layers of the nodes that read it.
    """
    if layer is not None:
        return int(layer)
    return MIDDLE if readers == {MIDDLE} else OUTSIDE


def resized(old: np.ndarray, dims: list[int], count: int, swap: Mapping[int, int]) -> np.ndarray:
    """A small constant's values (count,) at the new sizes.

    Position ids continue; numbers that are sizes (the pattern of a reshape) are replaced; other values are repeated.
    """
    if old.dtype.kind == "i" and len(old) > 1 and np.array_equal(old, np.arange(len(old))):
        return np.arange(count, dtype=old.dtype)
    if old.dtype.kind == "i" and old.dtype.itemsize > 1 and len(old) == count:
        return np.array([swap.get(int(value), int(value)) for value in old], dtype=old.dtype)
    return np.resize(old, count)


def activation_folders(graphs: Path) -> list[Path]:
    """The templates' folders, each named after its activation."""
    return sorted(folder for folder in graphs.iterdir() if folder.is_dir())


def largest_student() -> Arch:
    """The largest architecture of the search space."""
    space = SearchSpace()
    return Arch(max(space.layers), 12, max(space.hidden), max(space.ffn))


def graph_sizes(arch: Arch, config: Any) -> Sizes:
    """Sizes of a student's graph, from the teacher's configuration."""
    sizes = student_shape_of(config)
    return Sizes(arch, sizes.vocabulary, sizes.position_rows)


def make_pool(config: Any, seed: int, others: Sequence[Arch]) -> WeightPool:
    """A pool whose first part can hold any student or the teacher, with further parts for `others`."""
    largest, teacher, sizes = largest_student(), teacher_shape(config), student_shape_of(config)
    parts = [max(part_bytes(largest), part_bytes(teacher)), *map(part_bytes, others)]
    tables = table_bytes(max(largest.hidden, teacher.hidden), sizes.vocabulary, sizes.position_rows)
    return WeightPool(parts, tables, seed)


def teacher_shape(config: Any) -> Arch:
    """The teacher as an architecture. Its graph has its students' family, so MPNet's has no relative positions.

    Raises:
        UsageError: no graph can be made of the teacher.
    """
    arch = shape_of(config).arch
    if arch.layers < 3:
        raise UsageError(f"the teacher has {arch.layers} layers; compiled engines are measured from 3 layers on")
    return arch
