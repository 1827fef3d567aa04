"""OpenVINO graphs of any architecture, rewritten from one small export as described in `kdnas.latency.rewriting`."""

import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from kdnas.latency.rewriting import (
    FIRST,
    LAST,
    MIDDLE,
    POOL_FROM_VALUES,
    TABLE_ROWS,
    PoolPart,
    Sizes,
    block_of,
    resized,
    substitution,
)

ELEMENT = {"f32": np.float32, "i64": np.int64, "i32": np.int32, "i8": np.int8, "u8": np.uint8, "boolean": np.bool_}
LAYER_NAME = re.compile(r"encoder\.layer\.(\d+)\.")


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

    def write(self, sizes: Sizes, pool: PoolPart) -> bytes:
        """XML of the graph with these sizes; its weights lie in the pool's buffer and are valid until the pool is reset.

        Raises:
            ValueError: `sizes` has fewer than 3 layers.
        """
        swap = substitution(sizes)
        pool.reset()
        depth = sizes.arch.layers
        copies = depth - 2
        numbers: dict[tuple[int, int], int] = {}
        root = ElementTree.Element("net", self._root.attrib)
        layers = ElementTree.SubElement(root, "layers")
        for index, copy in self._order(copies):
            numbers[index, copy] = len(numbers)
            layers.append(self._node(index, copy, depth, numbers[index, copy], swap, pool))
        edges = ElementTree.SubElement(root, "edges")
        for edge in self._edges:
            source, target = edge["from-layer"], edge["to-layer"]
            for copy in range(copies if self._blocks[target] == MIDDLE else 1):
                ends = {"from-layer": numbers[self._source(source, target, copy, copies)]}
                ends |= {"to-layer": numbers[target, copy]}
                ElementTree.SubElement(edges, "edge", {k: str(v) for k, v in ({**edge, **ends}).items()})
        for extra in self._root:
            if extra.tag not in ("layers", "edges"):
                root.append(extra)
        return bytes(ElementTree.tostring(root))

    def _order(self, copies: int) -> Iterator[tuple[int, int]]:
        """(node, copy) in the template's order, with the middle layer repeated `copies` times in its position."""
        middle = [number for number in self._nodes if self._blocks[number] == MIDDLE]
        for number in self._nodes:
            if self._blocks[number] != MIDDLE:
                yield number, 0
            elif number == middle[0]:
                yield from ((inner, copy) for copy in range(copies) for inner in middle)

    def _source(self, source: int, target: int, copy: int, copies: int) -> tuple[int, int]:
        """The source node of an edge, and which copy of it."""
        inside = self._blocks[target] == MIDDLE
        if self._blocks[source] == MIDDLE:
            return source, copy if inside else copies - 1
        if inside and copy and self._blocks[source] == FIRST:  # the layer below is also a middle layer
            name = LAYER_NAME.sub("encoder.layer.1.", self._nodes[source].attrib["name"])
            return self._by_name[name], copy - 1
        return source, 0

    def _node(
        self, index: int, copy: int, depth: int, number: int, swap: Mapping[int, int], pool: PoolPart
    ) -> ElementTree.Element:
        node = deepcopy(self._nodes[index])
        block = self._blocks[index]
        name = node.attrib["name"]
        if block == MIDDLE:
            name = (
                f"{LAYER_NAME.sub(f'encoder.layer.{1 + copy}.', name)}{'' if 'encoder.layer.' in name else f'/{copy}'}"
            )
        elif block == LAST:
            name = LAYER_NAME.sub(f"encoder.layer.{depth - 1}.", name)
        node.attrib |= {"id": str(number), "name": name}
        for dim in node.iter("dim"):
            dim.text = str(swap.get(int(dim.text or 0), dim.text))
        data = node.find("data")
        if node.attrib["type"] == "Const" and data is not None:
            self._constant(data, swap, pool)
        return node

    def _constant(self, data: ElementTree.Element, swap: Mapping[int, int], pool: PoolPart) -> None:
        """Give a constant its new shape and its slice of the pool."""
        dtype = np.dtype(ELEMENT[data.attrib["element_type"]])
        offset, size = int(data.attrib["offset"]), int(data.attrib["size"])
        old = np.frombuffer(self._constants, dtype, size // dtype.itemsize, offset)
        dims = [int(text) for text in data.attrib["shape"].split(",") if text.strip()]
        shape = [swap.get(dim, dim) for dim in dims]
        count = int(np.prod(shape))
        if count >= POOL_FROM_VALUES and dtype in (np.float32, np.int8):
            take = pool.take_table if dims[0] in TABLE_ROWS else pool.take
            where = take(count * dtype.itemsize)
        else:
            where = pool.put(resized(old, dims, count, swap))
        data.attrib |= {"shape": ", ".join(map(str, shape)), "offset": str(where[0]), "size": str(where[1])}


def _assign_blocks(nodes: Mapping[int, ElementTree.Element], edges: list[dict[str, int]]) -> dict[int, int]:
    """Map each node to its layer, or to `OUTSIDE`.

    The name gives the layer; constants without a layer's name belong to the only layer that reads them.
    """
    readers: dict[int, list[int]] = {number: [] for number in nodes}
    for edge in edges:
        readers[edge["from-layer"]].append(edge["to-layer"])
    blocks: dict[int, int] = {}
    for number in reversed(list(nodes)):  # exported in topological order: readers come later
        found = LAYER_NAME.search(nodes[number].attrib["name"])
        blocks[number] = block_of(found and found[1], {blocks[reader] for reader in readers[number]})
    return blocks


def describe(xml: bytes) -> list[tuple[Any, ...]]:
    """An engine's view of a graph, in topological order: types, attributes and shapes, without names and values."""
    layers = ElementTree.fromstring(xml).find("layers")
    assert layers is not None
    rows = []
    for node in layers:
        data = node.find("data")
        attributes = {} if data is None else {k: v for k, v in data.attrib.items() if k not in ("offset", "size")}
        dims = tuple(dim.text for dim in node.iter("dim"))
        rows.append((node.attrib["type"], tuple(sorted(attributes.items())), dims))
    return rows
