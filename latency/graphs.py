"""OpenVINO graphs of any architecture, from one small model: the exporter's own graph with other sizes.

Exporting takes seconds, and quantising more, for each of 2400 architectures. Their graphs differ only in sizes and in the
number of layers, so a model of three layers whose every size is a number of its own is exported once for each activation;
its graph is then rewritten: sizes are replaced by name, the middle layer is repeated. Weights come from one random pool.
"""

import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from kdnas.arch import Arch

# No two sizes of the template are equal, nor equal to a rank, a token type or a depth.
TEMPLATE = Arch(layers=3, heads=5, hidden=70, ffn=93, activation="gelu")
TEMPLATE_VOCABULARY, TEMPLATE_POSITIONS = 101, 59
SMALL_BYTES = 32 * 2**20  # vectors and scalars of the largest architecture take a fifth of it
POOL_FROM_VALUES = 20_000  # constants with at least as many values come from the pool
ALIGNMENT = 64
ELEMENT = {"f32": np.float32, "i64": np.int64, "i32": np.int32, "i8": np.int8, "u8": np.uint8, "boolean": np.bool_}
LAYER_NAME = re.compile(r"encoder\.layer\.(\d+)\.")


@dataclass(frozen=True)
class Sizes:
    """What an architecture's graph is made of, in the order of the template's numbers.

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
    """One buffer that all graphs take their constants from: small ones are written anew, large ones are random slices.

    Large constants of one graph never overlap, so each is read from memory of its own, as in a freshly loaded model.

    Args:
        pool_bytes: of the largest graph's matrices and tables.
        seed: of the random values.
    """

    def __init__(self, pool_bytes: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        values = np.empty((SMALL_BYTES + pool_bytes + ALIGNMENT) // 4 + 1, dtype=np.float32)
        block = rng.standard_normal(4_000_000, dtype=np.float32) * np.float32(0.02)
        block[np.abs(block) < 1e-6] = 1e-3  # no products so small that they become denormal and slow
        for first in range(SMALL_BYTES // 4, len(values), len(block)):
            values[first : first + len(block)] = np.roll(block, first // len(block))[: len(values) - first]
        self.bytes = values.view(np.uint8)
        self.reset()

    def reset(self) -> None:
        """Begin another graph; the last one must not be used any more."""
        self._small, self._large = 0, SMALL_BYTES

    def put(self, value: np.ndarray) -> tuple[int, int]:
        """Offset and size of a small constant, written into the buffer."""
        data = np.frombuffer(np.ascontiguousarray(value).tobytes(), dtype=np.uint8)
        offset, self._small = self._small, _aligned(self._small + len(data))
        assert self._small <= SMALL_BYTES
        self.bytes[offset : offset + len(data)] = data
        return offset, len(data)

    def take(self, size: int) -> tuple[int, int]:
        """Offset and size of a random constant that this graph has for itself."""
        offset, self._large = self._large, _aligned(self._large + size)
        assert self._large <= len(self.bytes)
        return offset, size


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT


def pool_bytes(arch: Arch, vocabulary: int, positions: int) -> int:
    """Bytes that the matrices and tables of an architecture take at most, in float32."""
    rows = vocabulary + positions + 64
    return 4 * (rows * arch.hidden + arch.layer_parameters) + ALIGNMENT * 32 * arch.layers


class GraphTemplate:
    """The exported graph of the template, ready to be rewritten.

    Args:
        folder: holds `openvino_model.xml` and `.bin`, exported from `TEMPLATE_SIZES`.
    """

    def __init__(self, folder: Path) -> None:
        self._root = ElementTree.parse(folder / "openvino_model.xml").getroot()
        self._constants = (folder / "openvino_model.bin").read_bytes()
        layers, edges = self._root.find("layers"), self._root.find("edges")
        assert layers is not None
        assert edges is not None
        self._nodes = {int(node.attrib["id"]): node for node in layers}
        self._edges = [{key: int(value) for key, value in edge.attrib.items()} for edge in edges]
        self._blocks = _assign_blocks(self._nodes, self._edges)
        self._by_name = {node.attrib["name"]: number for number, node in self._nodes.items()}

    def write(self, sizes: Sizes, pool: WeightPool) -> bytes:
        """XML of the graph with these sizes; its weights are the pool's buffer, until the pool is reset.

        Raises:
            ValueError: fewer than 3 layers.
        """
        depth = sizes.arch.layers
        if depth < TEMPLATE.layers:
            raise ValueError(f"layers is {depth}; a graph is made of at least {TEMPLATE.layers}")
        pool.reset()
        swap = dict(zip(TEMPLATE_SIZES.numbers, sizes.numbers, strict=True))
        copies = depth - 2
        numbers: dict[tuple[int, int], int] = {}
        root = ElementTree.Element("net", self._root.attrib)
        layers = ElementTree.SubElement(root, "layers")
        for place, copy in self._order(copies):
            numbers[place, copy] = len(numbers)
            layers.append(self._node(place, copy, depth, numbers[place, copy], swap, pool))
        edges = ElementTree.SubElement(root, "edges")
        for edge in self._edges:
            source, target = edge["from-layer"], edge["to-layer"]
            for copy in range(copies if self._blocks[target] == 1 else 1):
                ends = {"from-layer": numbers[self._source(source, target, copy, copies)]}
                ends |= {"to-layer": numbers[target, copy]}
                ElementTree.SubElement(edges, "edge", {k: str(v) for k, v in ({**edge, **ends}).items()})
        for extra in self._root:
            if extra.tag not in ("layers", "edges"):
                root.append(extra)
        return bytes(ElementTree.tostring(root))

    def _order(self, copies: int) -> Iterator[tuple[int, int]]:
        """(node, copy) in the template's order, the middle layer `copies` times, where it stands."""
        middle = [number for number in self._nodes if self._blocks[number] == 1]
        for number in self._nodes:
            if self._blocks[number] != 1:
                yield number, 0
            elif number == middle[0]:
                yield from ((inner, copy) for copy in range(copies) for inner in middle)

    def _source(self, source: int, target: int, copy: int, copies: int) -> tuple[int, int]:
        """Which copy of which node an edge comes from."""
        inside = self._blocks[target] == 1
        if self._blocks[source] == 1:
            return source, copy if inside else copies - 1
        if inside and copy and self._blocks[source] == 0:  # the layer below is a middle one too
            name = LAYER_NAME.sub("encoder.layer.1.", self._nodes[source].attrib["name"])
            return self._by_name[name], copy - 1
        return source, 0

    def _node(
        self, place: int, copy: int, depth: int, number: int, swap: Mapping[int, int], pool: WeightPool
    ) -> ElementTree.Element:
        node = deepcopy(self._nodes[place])
        block = self._blocks[place]
        name = node.attrib["name"]
        if block == 1:
            name = (
                f"{LAYER_NAME.sub(f'encoder.layer.{1 + copy}.', name)}{'' if 'encoder.layer.' in name else f'/{copy}'}"
            )
        elif block == 2:
            name = LAYER_NAME.sub(f"encoder.layer.{depth - 1}.", name)
        node.attrib |= {"id": str(number), "name": name}
        for dim in node.iter("dim"):
            dim.text = str(swap.get(int(dim.text or 0), dim.text))
        data = node.find("data")
        if node.attrib["type"] == "Const" and data is not None:
            self._constant(data, swap, pool)
        return node

    def _constant(self, data: ElementTree.Element, swap: Mapping[int, int], pool: WeightPool) -> None:
        """Give a constant its new shape and its place in the pool."""
        dtype = np.dtype(ELEMENT[data.attrib["element_type"]])
        offset, size = int(data.attrib["offset"]), int(data.attrib["size"])
        old = np.frombuffer(self._constants, dtype, size // dtype.itemsize, offset)
        dims = [int(text) for text in data.attrib["shape"].split(",") if text.strip()]
        shape = [swap.get(dim, dim) for dim in dims]
        count = int(np.prod(shape))
        if count >= POOL_FROM_VALUES and dtype in (np.float32, np.int8):
            where = pool.take(count * dtype.itemsize)
        else:
            where = pool.put(_resized(old, dims, count, swap))
        data.attrib |= {"shape": ", ".join(map(str, shape)), "offset": str(where[0]), "size": str(where[1])}


def _resized(old: np.ndarray, dims: list[int], count: int, swap: Mapping[int, int]) -> np.ndarray:
    """A small constant's values (count,) at the new sizes.

    Positions go on counting; numbers that are sizes (the pattern of a reshape) are replaced; all else is repeated.
    """
    if old.dtype.kind == "i" and len(old) > 1 and np.array_equal(old, np.arange(len(old))):
        return np.arange(count, dtype=old.dtype)
    if old.dtype.kind == "i" and old.dtype.itemsize > 1 and len(old) == count:
        return np.array([swap.get(int(value), int(value)) for value in old], dtype=old.dtype)
    return np.resize(old, count)


def _assign_blocks(nodes: Mapping[int, ElementTree.Element], edges: list[dict[str, int]]) -> dict[int, int]:
    """Node to the layer it belongs to, -1 for what is outside of all.

    The name says it; constants without a layer's name belong to the one layer that reads them.
    """
    readers: dict[int, list[int]] = {number: [] for number in nodes}
    for edge in edges:
        readers[edge["from-layer"]].append(edge["to-layer"])
    blocks: dict[int, int] = {}
    for number in reversed(list(nodes)):  # exported in topological order: readers come later
        found = LAYER_NAME.search(nodes[number].attrib["name"])
        if found:
            blocks[number] = int(found.group(1))
        else:
            above = {blocks[reader] for reader in readers[number]}
            blocks[number] = 1 if above == {1} else -1
    return blocks


def describe(xml: bytes) -> list[tuple[Any, ...]]:
    """What an engine sees of a graph, in topological order: types, attributes and shapes, but no names and no values."""
    layers = ElementTree.fromstring(xml).find("layers")
    assert layers is not None
    rows = []
    for node in layers:
        data = node.find("data")
        attributes = {} if data is None else {k: v for k, v in data.attrib.items() if k not in ("offset", "size")}
        dims = tuple(dim.text for dim in node.iter("dim"))
        rows.append((node.attrib["type"], tuple(sorted(attributes.items())), dims))
    return rows
