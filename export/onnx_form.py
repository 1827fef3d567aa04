"""The ONNX forms: float32 by Optimum's exporter, and three int8 recipes with activations quantised at run time."""

import shutil
from pathlib import Path
from typing import Any

from kdnas.export.folder import EXTERNAL
from kdnas.models.teacher import load_config
from kdnas.store.host import has_vnni

GRAPH = "model.onnx"
QUANTIZED = "model_quantized.onnx"  # Optimum's default name: it searches a folder for a file of this name
BLOCK = 64  # number of inputs that share one scale
MAPPED_BYTES = 1 << 20  # least size of a table that is mapped
PAGE_BYTES = 4096


def write_onnx(model: Any, task: str, folder: Path) -> None:
    """Write `model.onnx` in float32 with dynamic batch and length, and the config.json that Optimum's classes need.

    Optimum's own validation is off: every form is compared with PyTorch on real sentences afterwards.
    """
    from optimum.exporters.onnx import onnx_export_from_model

    onnx_export_from_model(model, folder, task=task, do_validation=False)


def write_onnx_int8(float_folder: Path, folder: Path, operators: tuple[str, ...] = ("MatMul", "Gather")) -> None:
    """Quantise the float32 form: weights per channel, symmetric; activations by their range in each call.

    The range covers a whole batch with its padding, so outputs depend slightly on the batch. On a CPU without VNNI, weights take
    7 bits, because the sums of two 8-bit products overflow there.

    Args:
        float_folder: folder that `write_onnx` wrote.
        folder: gets `model_quantized.onnx`, config.json and Optimum's settings.
        operators: operators to quantise; the quantiser turns every Gemm into a MatMul.
    """
    from optimum.onnxruntime import AutoQuantizationConfig, ORTQuantizer

    settings = AutoQuantizationConfig.avx512_vnni(
        is_static=False,
        per_channel=True,
        operators_to_quantize=list(operators),
        nodes_to_exclude=_kept_in_float(float_folder / GRAPH),
    )
    settings.reduce_range = not has_vnni()
    quantizer = ORTQuantizer(float_folder / GRAPH, config=load_config(float_folder))
    quantizer.quantize(settings, save_dir=folder, file_suffix="quantized")


def write_onnx_int8_attention(float_folder: Path, folder: Path) -> None:
    """Quantise as `write_onnx_int8`, with each attention fused into one operator: one product gives query, key and value.

    Layers that compute only the first token keep separate products. The operator takes 7-bit weights.

    Args:
        float_folder: folder that `write_onnx` wrote.
        folder: output, as in `write_onnx_int8`; `folder.fused`, in the same parent, is temporary.
    """
    import onnx
    from onnxruntime.tools.symbolic_shape_infer import SymbolicShapeInference
    from onnxruntime.transformers.fusion_options import FusionOptions
    from onnxruntime.transformers.optimizer import optimize_model

    options = FusionOptions("bert")
    options.use_raw_attention_mask(True)  # the alternative interprets the mask as a length
    options.enable_skip_layer_norm = options.enable_bias_skip_layer_norm = options.enable_embed_layer_norm = False
    model = optimize_model(str(float_folder / GRAPH), "bert", optimization_options=options, opt_level=0)
    fused = folder.with_name(f"{folder.name}.fused")
    fused.mkdir()
    model.save_model_to_file(str(fused / GRAPH))  # with the operators' domain
    # The quantiser needs the output types of the new operators.
    onnx.save(SymbolicShapeInference.infer_shapes(onnx.load(fused / GRAPH), auto_merge=True), fused / GRAPH)
    shutil.copy(float_folder / "config.json", fused)
    write_onnx_int8(fused, folder, operators=("MatMul", "Gather", "Attention"))
    shutil.rmtree(fused)


def write_onnx_int8_blocks(float_folder: Path, folder: Path) -> None:
    """Quantise tables per row, matrices in blocks of 64 inputs, and activations per token and block.

    This is slower than one scale per channel, but closer to float32, and outputs do not depend on the batch.

    Args:
        float_folder: folder that `write_onnx` wrote.
        folder: output, as in `write_onnx_int8`.
    """
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

    write_onnx_int8(float_folder, folder, operators=("Gather",))
    settings = DefaultWeightOnlyQuantConfig(block_size=BLOCK, is_symmetric=True, accuracy_level=4, bits=8)
    quantizer = MatMulNBitsQuantizer(onnx.load(folder / QUANTIZED), algo_config=settings)
    quantizer.process()
    onnx.save(quantizer.model.model, folder / QUANTIZED)


def map_tables(graph: Path) -> None:
    """Move large tables to a file beside the graph, ONNX's external data, unless the graph has such a file already.

    ONNX Runtime maps the file into memory: a session starts sooner, and only the rows of its tokens take memory (results/export).

    Args:
        graph: an `.onnx` file; it is replaced when the other file is complete.
    """
    import onnx
    from onnx.external_data_helper import set_external_data, uses_external_data

    model = onnx.load(graph, load_external_data=False)
    looked_up = {node.input[0] for node in model.graph.node if node.op_type == "Gather"}
    constants = model.graph.initializer
    tables = [one for one in constants if one.name in looked_up and len(one.raw_data) >= MAPPED_BYTES]
    if not tables or any(uses_external_data(one) for one in constants):
        return
    data = graph.with_name(f"{graph.name}{EXTERNAL}")
    with data.open("wb") as file:
        for table in tables:
            file.write(bytes(-file.tell() % PAGE_BYTES))
            set_external_data(table, data.name, offset=file.tell(), length=len(table.raw_data))
            file.write(table.raw_data)
            table.ClearField("raw_data")
    writing = graph.with_name(f"{graph.name}.tmp")
    onnx.save(model, writing)
    writing.replace(graph)


def _kept_in_float(file: Path) -> list[str]:
    """Names of the nodes that stay in float: products of two activations, which have no weights, and small look-up tables."""
    import onnx

    graph = onnx.load(file, load_external_data=False).graph
    weights = {tensor.name for tensor in graph.initializer}
    return [
        node.name
        for node in graph.node
        if (node.op_type == "MatMul" and not weights & set(node.input))
        or (node.op_type == "Gather" and "word_embeddings" not in node.input[0])
    ]
