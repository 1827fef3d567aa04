"""Replace the nodes before an OpenVINO graph's first layer by fewer ones: each node costs a call some microseconds.

Positions that are the same for every text need no look-up. A token-type table with a single row in use is added to the
positions. The mask becomes numbers in four nodes instead of ten. Unrecognised parts are unchanged.
"""

from typing import Any

import numpy as np

POSITIONS, TYPES = "position_embeddings/aten::embedding/Gather", "token_type_embeddings/aten::embedding/Gather"
# Added to the scores of padding; bf16 can represent it, unlike float32's minimum, and its exponential is still 0.
MASKED = np.float32(-1e30)


def shorten_entry(model: Any) -> int:
    """Replace the look-ups and the mask of an exported float32 graph; returns the number of recognised parts, 0 to 3.

    Args:
        model: an `openvino.Model` of an encoder, with or without head; changed in place.
    """
    changed = _shorten_mask(model)
    positions, types = _look_up(model, POSITIONS), _look_up(model, TYPES)
    if positions is None:
        return changed
    row = None if types is None else _only_row(types)
    return changed + (_number_tokens(positions, types, row) or _slice_positions(positions))


def small_tables(model: Any) -> list[str]:
    """Names of the look-ups of positions and token types: int8 would save little memory and add three nodes for each."""
    found = (_look_up(model, name) for name in (POSITIONS, TYPES))
    return [node.get_friendly_name() for node in found if node is not None]


def _look_up(model: Any, name: str) -> Any:
    """The look-up in a float32 table whose name ends with `name`, or None."""
    for node in model.get_ops():
        if node.get_friendly_name().endswith(name) and node.get_type_name() == "Gather":
            return node if _kind(_source(node, 0)) == "Constant" else None
    return None


def _shorten_mask(model: Any) -> int:
    """Convert the mask to numbers (B, 1, 1, T) that are added to the scores, without broadcast to (B, 1, T, T) or selection."""
    from openvino import opset13 as ops

    for node in model.get_ops():
        if node.get_type_name() != "Select" or _kind(_source(node, 2)) != "Subtract":
            continue
        chain = [_source(_source(node, 2), 1)]  # the mask as numbers, broadcast, with two more axes
        while _kind(chain[-1]) in ("Convert", "Broadcast", "Unsqueeze"):
            chain.append(_source(chain[-1], 0))
        if [_kind(one) for one in chain] != ["Convert", "Broadcast", "Unsqueeze", "Unsqueeze", "Parameter"]:
            continue
        padding = ops.subtract(ops.constant(np.float32(1)), ops.convert(chain[-1], "f32"))
        scores = ops.unsqueeze(ops.multiply(padding, ops.constant(MASKED)), ops.constant(np.array([1, 2])))
        _replace(node, scores)
        return 1
    return 0


def _number_tokens(positions: Any, types: Any, row: int | None) -> int:
    """RoBERTa's positions, counted over real tokens: in int32, from a shifted table that includes the token types."""
    from openvino import opset13 as ops

    start = _bare(_source(positions, 1))  # pad + (cumulated * real)
    if _kind(start) != "Add" or _kind(_source(start, 1)) != "Constant":
        return 0
    counted = _bare(_source(start, 0))
    if _kind(counted) != "Multiply" or _kind(_source(counted, 0)) != "CumSum":
        return 0
    compared = _bare(_source(counted, 1))
    if _kind(compared) != "NotEqual" or _kind(_source(compared, 0)) != "Parameter":
        return 0
    pad = int(_source(start, 1).get_data().item())
    table = np.roll(_source(positions, 0).get_data(), -pad, axis=0)  # no text reaches the last rows
    real = ops.convert(compared, "i32")
    indices = ops.multiply(ops.cum_sum(real, ops.constant(np.int64(1))), real)
    merged = 0
    if row is not None and (rest := _without(types)) is not None:
        table = table + _source(types, 0).get_data()[row]
        _reader(types).output(0).replace(rest)
        merged = 1
    _replace(positions, ops.gather(ops.constant(table), indices, ops.constant(np.int32(0))))
    return 1 + merged


def _slice_positions(positions: Any) -> int:
    """BERT's positions: the first T rows of the table."""
    from openvino import opset13 as ops

    taken = _bare(_source(positions, 1))
    if _kind(taken) != "Slice" or _kind(_source(taken, 0)) != "Constant":
        return 0
    rows = _source(taken, 0).get_data()
    if rows.shape[0] != 1 or not np.array_equal(rows[0], np.arange(rows.shape[1])):
        return 0
    zero, one = ops.constant(np.array([0])), ops.constant(np.array([1]))
    _replace(positions, ops.slice(positions.input_value(0), zero, taken.input_value(2), one, zero))
    return 1


def _only_row(types: Any) -> int | None:
    """The row of the table that all inputs read, or None if the row depends on an input."""
    node = _bare(_source(types, 1))
    while _kind(node) in ("Broadcast", "Slice", "Convert"):
        node = _source(node, 0)
    values = node.get_data() if _kind(node) == "Constant" else np.array([])
    return int(values.flat[0]) if values.size and (values == values.flat[0]).all() else None


def _reader(node: Any) -> Any:
    """The only node that reads a node's output, or None if there are several."""
    targets = node.output(0).get_target_inputs()
    return next(iter(targets)).get_node() if len(targets) == 1 else None


def _without(node: Any) -> Any:
    """The other term of the sum that reads a node; None if its reader is not a sum."""
    total = _reader(node)
    if total is None or _kind(total) != "Add":
        return None
    first, second = total.input_value(0), total.input_value(1)
    return second if first.get_node().get_name() == node.get_name() else first


def _replace(old: Any, new: Any) -> None:
    """Replace a node by another with the same name."""
    new.set_friendly_name(old.get_friendly_name())
    old.output(0).replace(new.output(0))


def _source(node: Any, index: int) -> Any:
    return node.input_value(index).get_node()


def _kind(node: Any) -> str:
    return str(node.get_type_name())


def _bare(node: Any) -> Any:
    """The nearest source of a node that is not a conversion."""
    while _kind(node) == "Convert":
        node = _source(node, 0)
    return node
