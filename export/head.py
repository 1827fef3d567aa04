"""Adds a model's embedding to its finished graphs: pooling, the linear head and unit length, as an output of its own.

The states stay an output, so libraries that pool on their own load the graphs as before; a runtime computes only the output that
is asked for (ONNX Runtime), or one more small product (OpenVINO). The head stays float32 in all forms.
"""

from pathlib import Path
from typing import Any

import numpy as np

from kdnas.errors import BoundError
from kdnas.export.engines import Forward
from kdnas.export.folder import EMBEDDING
from kdnas.export.outputs import pool_states, unit
from kdnas.export.parity import padded_outputs
from kdnas.models.engine import ENGINES
from kdnas.models.head import Head
from kdnas.models.pooling import Pooling

LEAST = 1e-12  # length of a vector below which it is not divided by it, as in `kdnas.export.outputs`


def add_embedding(graph: Path, form: str, head: Head, pooling: Pooling) -> None:
    """Add the output `sentence_embedding` (B, D) to a graph, unless it has it already.

    Args:
        graph: `model.onnx` or `openvino_model.xml` with the output `last_hidden_state`.
        form: name of the engine that runs it.
        head: linear map of the pooled vector.
        pooling: how the states become one vector.
    """
    (_to_onnx if ENGINES[form].runtime == "onnxruntime" else _to_openvino)(graph, head, pooling)


def embeddings(reference: list[np.ndarray], head: Head, pooling: Pooling) -> np.ndarray:
    """Unit vectors (N, D) of PyTorch's states, each (T, D_in)."""
    found = [pool_states(states[None], np.ones((1, len(states)), np.int64), pooling) for states in reference]
    return unit(head(np.concatenate(found)))


def embedding_parity(
    run: Forward, rows: list[list[int]], expected: np.ndarray, pad_id: int, max_seq_len: int
) -> dict[str, float]:
    """Differences of a form's embeddings from the expected ones (N, D), with the rows in padded batches of mixed lengths."""
    # One vector a text, like a text's logits.
    found = np.concatenate(padded_outputs(run, "text-classification", rows, pad_id, max_seq_len))
    return {
        "embedding_max_abs_diff": float(np.abs(found - expected).max()),
        "embedding_cosine_mean": float((found * expected).sum(-1).mean()),
        "embedding_cosine_min": float((found * expected).sum(-1).min()),
    }


def require_same(form: str, found: dict[str, float], bound: float) -> None:
    """Refuse a float32 form whose embeddings differ from PyTorch's by more than `bound`.

    Raises:
        BoundError: the difference exceeds the bound.
    """
    if not found["embedding_max_abs_diff"] <= bound:
        raise BoundError(
            f"{form}: its embeddings differ from PyTorch by up to {found['embedding_max_abs_diff']:.2e}, the limit is {bound:.2e}"
        )


def _to_onnx(graph: Path, head: Head, pooling: Pooling) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(graph)
    if any(output.name == EMBEDDING for output in model.graph.output):
        return
    constants: dict[str, np.ndarray] = {
        "head.weight": np.ascontiguousarray(head.weight.T, dtype=np.float32),
        "head.bias": head.bias.astype(np.float32),
        "head.first": np.array(0, dtype=np.int64),
        "head.axis1": np.array([1], dtype=np.int64),
        "head.axis2": np.array([2], dtype=np.int64),
        "head.least": np.array(LEAST, dtype=np.float32),
    }
    nodes: list[Any] = []

    def add(kind: str, inputs: list[str], **settings: Any) -> str:
        name = f"head.{len(nodes)}"
        nodes.append(helper.make_node(kind, inputs, [name], name=f"{kind}_{name}", **settings))
        return name

    if pooling == "first":
        pooled = add("Gather", ["last_hidden_state", "head.first"], axis=1)
    else:
        real = add("Cast", ["attention_mask"], to=TensorProto.FLOAT)
        weights = add("Unsqueeze", [real, "head.axis2"])
        total = add("ReduceSum", [add("Mul", ["last_hidden_state", weights]), "head.axis1"], keepdims=0)
        pooled = add("Div", [total, add("ReduceSum", [weights, "head.axis1"], keepdims=0)])
    mapped = add("Add", [add("MatMul", [pooled, "head.weight"]), "head.bias"])
    squares = add("ReduceSum", [add("Mul", [mapped, mapped]), "head.axis1"], keepdims=1)
    length = add("Max", [add("Sqrt", [squares]), "head.least"])
    nodes.append(helper.make_node("Div", [mapped, length], [EMBEDDING], name="head.unit"))
    used = {name for node in nodes for name in node.input}
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items() if name in used
    )
    model.graph.output.append(helper.make_tensor_value_info(EMBEDDING, TensorProto.FLOAT, ["batch_size", head.outputs]))
    writing = graph.with_name(graph.name + ".tmp")
    onnx.save(model, writing)
    writing.replace(graph)


def _to_openvino(graph: Path, head: Head, pooling: Pooling) -> None:
    from kdnas.export.openvino_form import change_graph

    def change(model: Any) -> None:
        from openvino import opset13 as ops

        if any(EMBEDDING in port.get_names() for port in model.outputs):
            return
        states = model.output("last_hidden_state").get_node().input_value(0)
        if pooling == "first":
            pooled = ops.gather(states, np.int64(0), np.int64(1))
        else:
            weights = ops.unsqueeze(ops.convert(model.input("attention_mask").get_node(), "f32"), np.int64(2))
            total = ops.reduce_sum(ops.multiply(states, weights), np.int64(1))
            pooled = ops.divide(total, ops.reduce_sum(weights, np.int64(1)))
        weight, bias = ops.constant(head.weight.astype(np.float32)), ops.constant(head.bias[None].astype(np.float32))
        mapped = ops.add(ops.matmul(pooled, weight, False, True), bias)
        squares = ops.reduce_sum(ops.multiply(mapped, mapped), np.int64(1), keep_dims=True)
        unit = ops.divide(mapped, ops.maximum(ops.sqrt(squares), ops.constant(np.float32(LEAST))))
        unit.output(0).get_tensor().set_names({EMBEDDING})
        model.add_outputs([unit.output(0)])

    change_graph(graph.parent, change)
