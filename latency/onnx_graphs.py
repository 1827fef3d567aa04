"""ONNX graphs of any architecture, rewritten from one small export as described in `kdnas.latency.rewriting`.

ONNX identifies tensors by name, so repeating the middle layer means renaming its inputs and outputs. The exporter's shapes of
intermediate tensors are rewritten too, because ONNX Runtime fuses fewer nodes without them. Matrices and tables stay outside
the graph, in the pool's buffer, because a protobuf holds at most 2 GB.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, numpy_helper

from kdnas.latency.rewriting import (
    FIRST,
    LAST,
    MIDDLE,
    OUTSIDE,
    POOL_FROM_VALUES,
    TABLE_ROWS,
    PoolPart,
    Sizes,
    block_of,
    resized,
    substitution,
)

LAYER_NAME = re.compile(
    r"(encoder[./]layer\.)(\d+)(?=[./])"
)  # the module's name in nodes, the parameter's in initialisers
POOLED = (TensorProto.FLOAT, TensorProto.INT8, TensorProto.UINT8)
SHOWN_VALUES = 8


class OnnxTemplate:
    """The exported graph of the template, ready to be rewritten.

    Args:
        folder: holds one `.onnx` file, exported from `TEMPLATE_SIZES`.
    """

    def __init__(self, folder: Path) -> None:
        self._frame = onnx.load(next(folder.glob("*.onnx")))
        graph = self._frame.graph
        self._blocks = _assign_blocks(graph)
        self._nodes, self._weights, self._shapes = list(graph.node), list(graph.initializer), list(graph.value_info)
        for inferred in (graph.node, graph.initializer, graph.value_info):
            del inferred[:]

    def write(self, sizes: Sizes, pool: PoolPart) -> tuple[bytes, dict[str, np.ndarray]]:
        """The serialised graph with these sizes, and its large weights by name, as views of the pool's buffer.

        Graphs of one pool may be in use at the same time, unlike OpenVINO's, because they only read the shared memory.

        Raises:
            ValueError: `sizes` has fewer than 3 layers.
        """
        swap = substitution(sizes)
        pool.reset()
        depth = sizes.arch.layers
        model = ModelProto()
        model.CopyFrom(self._frame)
        for value in (*model.graph.input, *model.graph.output):
            _resize(value, swap)
        for value in self._shapes:
            for copy in range(self._copies(value.name, depth)):
                made = model.graph.value_info.add()
                made.CopyFrom(value)
                made.name = self._rename(value.name, copy, depth)
                _resize(made, swap)
        model.graph.node.extend(self._node(node, copy, depth, swap) for node, copy in self._order(depth - 2))
        large: dict[str, np.ndarray] = {}
        for weight in self._weights:
            for copy in range(self._copies(weight.name, depth)):
                name = self._rename(weight.name, copy, depth)
                if weight.data_type in POOLED and _count(weight, swap) >= POOL_FROM_VALUES:
                    tensor, large[name] = _outside(weight, swap, pool)
                else:
                    tensor = _resized_tensor(weight, swap)
                tensor.name = name
                model.graph.initializer.append(tensor)
        return model.SerializeToString(), large

    def _order(self, copies: int) -> Iterator[tuple[NodeProto, int]]:
        """(node, copy) in order: nodes below the last layer, with the middle layer `copies` times, then the rest."""
        blocks = [self._blocks[node.output[0]] for node in self._nodes]
        last = blocks.index(LAST)
        placed = list(zip(self._nodes, blocks, strict=True))
        middle = [node for node, block in placed if block == MIDDLE]
        yield from ((node, 0) for node, block in placed[:last] if block != MIDDLE)
        yield from ((node, copy) for copy in range(copies) for node in middle)
        yield from ((node, 0) for node, block in placed[last:] if block != MIDDLE)

    def _node(self, old: NodeProto, copy: int, depth: int, swap: Mapping[int, int]) -> NodeProto:
        node = NodeProto()
        node.CopyFrom(old)
        block = self._blocks[old.output[0]]
        node.name = _layered(old.name, block, copy, depth)
        node.input[:] = [self._source(name, block, copy, depth) for name in old.input]
        node.output[:] = [self._rename(name, copy, depth) for name in old.output]
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                attribute.t.CopyFrom(_resized_tensor(attribute.t, swap))
        return node

    def _source(self, name: str, block: int, copy: int, depth: int) -> str:
        """The new name of a tensor that a node of this block and copy reads."""
        made_in = self._blocks.get(name, OUTSIDE)
        if made_in == MIDDLE and block != MIDDLE:
            return self._rename(name, depth - 3, depth)
        below = LAYER_NAME.sub(rf"\g<1>{MIDDLE}", name)
        if made_in == FIRST and block == MIDDLE and copy and self._blocks.get(below) == MIDDLE:
            return self._rename(below, copy - 1, depth)  # the layer below is also a middle layer
        return self._rename(name, copy, depth)

    def _copies(self, name: str, depth: int) -> int:
        """Number of copies of a tensor in a graph of `depth` layers."""
        return depth - 2 if self._blocks.get(name, OUTSIDE) == MIDDLE else 1

    def _rename(self, name: str, copy: int, depth: int) -> str:
        return _layered(name, self._blocks.get(name, OUTSIDE), copy, depth)


def _layered(name: str, block: int, copy: int, depth: int) -> str:
    """The name of a node or tensor of this block in a graph of `depth` layers."""
    if block == MIDDLE and not LAYER_NAME.search(name):
        return f"{name}/{copy}"
    layer = {MIDDLE: MIDDLE + copy, LAST: depth - 1}.get(block)
    return name if layer is None else LAYER_NAME.sub(rf"\g<1>{layer}", name)


def _resize(value: ValueInfoProto, swap: Mapping[int, int]) -> None:
    """Replace the sizes in a tensor's recorded shape."""
    for dim in value.type.tensor_type.shape.dim:
        if dim.HasField("dim_value"):
            dim.dim_value = swap.get(dim.dim_value, dim.dim_value)


def _count(tensor: TensorProto, swap: Mapping[int, int]) -> int:
    return int(np.prod([swap.get(dim, dim) for dim in tensor.dims]))


def _resized_tensor(old: TensorProto, swap: Mapping[int, int]) -> TensorProto:
    """A small tensor with its new shape and values."""
    dims = list(old.dims)
    new = TensorProto(name=old.name, data_type=old.data_type, dims=[swap.get(dim, dim) for dim in dims])
    new.raw_data = resized(numpy_helper.to_array(old).ravel(), dims, _count(old, swap), swap).tobytes()
    return new


def _outside(old: TensorProto, swap: Mapping[int, int], pool: PoolPart) -> tuple[TensorProto, np.ndarray]:
    """A large tensor with its new shape, stored outside the graph, and its random values."""
    dtype = numpy_helper.to_array(old).dtype
    new = TensorProto(data_type=old.data_type, dims=[swap.get(dim, dim) for dim in old.dims])
    new.data_location = TensorProto.EXTERNAL
    new.external_data.add(key="location", value="pool")
    take = pool.take_table if old.dims[0] in TABLE_ROWS else pool.take
    offset, size = take(_count(old, swap) * dtype.itemsize)
    return new, pool.bytes[offset : offset + size].view(dtype).reshape(tuple(new.dims))


def _assign_blocks(graph: GraphProto) -> dict[str, int]:
    """Map each tensor to the layer that makes or owns it: 0, 1, 2 or `OUTSIDE`.

    A node's name gives its layer; constants without a layer's name, and all initialisers, belong to the only layer that reads
    them.
    """
    blocks: dict[str, int] = {}
    readers: dict[str, set[int]] = defaultdict(set)
    for node in reversed(graph.node):  # exported in topological order: readers come later
        found = LAYER_NAME.search(node.name)
        block = block_of(found and found[2], {block for name in node.output for block in readers[name]})
        blocks |= dict.fromkeys(node.output, block)
        for name in node.input:
            readers[name].add(block)
    for weight in graph.initializer:
        above = readers[weight.name]
        blocks[weight.name] = above.pop() if len(above) == 1 else OUTSIDE
    return blocks


def describe(serialised: bytes) -> list[tuple[Any, ...]]:
    """An engine's view of each node: type, attributes, the source of each input or its type and shape, and recorded shapes.

    Includes the values of integers and short constants, but neither names nor the values of weights.
    """
    graph = onnx.load_model_from_string(serialised).graph
    made_by: dict[str, Any] = {value.name: "input" for value in graph.input}
    made_by |= {name: node.op_type for node in graph.node for name in node.output}
    made_by |= {weight.name: _shown(weight, weight.data_type == TensorProto.INT64) for weight in graph.initializer}
    noted = {
        value.name: tuple(dim.dim_value or "?" for dim in value.type.tensor_type.shape.dim)
        for value in graph.value_info
    }
    rows = []
    for node in graph.node:
        attributes = [
            (one.name, _shown(one.t, True) if one.type == AttributeProto.TENSOR else str(one)) for one in node.attribute
        ]
        inputs = [made_by.get(name) for name in node.input]
        shapes = tuple(noted.get(name) for name in node.output)
        rows.append((node.domain, node.op_type, tuple(sorted(attributes, key=str)), tuple(inputs), shapes))
    return rows


def _shown(tensor: TensorProto, values: bool) -> tuple[Any, ...]:
    shape = tuple(tensor.dims)
    if not values or np.prod(shape) > SHOWN_VALUES:
        return tensor.data_type, shape
    return tensor.data_type, shape, tuple(numpy_helper.to_array(tensor).ravel().tolist())
