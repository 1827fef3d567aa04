"""The search space can be exported: tested on 8 of 2400 architectures that cover every value of every field."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel

from kdnas.export.engines import open_graph
from kdnas.export.onnx_form import GRAPH as ONNX
from kdnas.export.onnx_form import QUANTIZED, write_onnx, write_onnx_int8
from kdnas.export.openvino_form import GRAPH, write_int8, write_openvino
from kdnas.export.parity import compare, require_bound, torch_outputs
from kdnas.export.silence import silence_exporters
from kdnas.latency.template import as_if_trained
from kdnas.models.arch import Arch, SearchSpace
from kdnas.models.student import student_config
from kdnas.models.teacher import BUILTIN, load_config, resolve_teacher

pytestmark = pytest.mark.slow


TASK, OUTPUT = "feature-extraction", ("last_hidden_state",)
VOCABULARY, POSITIONS = 500, 64
DESIGN = [  # deep architectures are narrow, because export time grows with the weights
    Arch(3, 2, 768, 384, "gelu"),
    Arch(4, 12, 576, 768, "gelu"),
    Arch(6, 3, 384, 576, "relu"),
    Arch(10, 4, 288, 512, "silu"),
    Arch(12, 6, 288, 1536, "relu"),
    Arch(3, 4, 384, 2048, "silu"),
    Arch(3, 6, 576, 3072, "relu"),
    Arch(6, 12, 288, 1024, "silu"),
]


def test_the_design_covers_every_value_of_every_field() -> None:
    for field in fields(SearchSpace):
        assert {getattr(arch, field.name) for arch in DESIGN} == set(getattr(SearchSpace(), field.name))


@pytest.mark.parametrize(
    "arch", [*DESIGN[:2], *(pytest.param(arch, marks=pytest.mark.exhaustive) for arch in DESIGN[2:])], ids=str
)
def test_architectures_export_in_both_engines_and_precisions(arch: Arch, tmp_path: Path) -> None:
    config = student_config(arch, load_config(resolve_teacher(BUILTIN).path))
    config.vocab_size, config.max_position_embeddings = VOCABULARY, POSITIONS
    torch.manual_seed(0)
    model = as_if_trained(AutoModel.from_config(config, add_pooling_layer=False).eval()).requires_grad_(False)
    rng = np.random.default_rng(0)
    rows = [rng.integers(5, VOCABULARY, length).tolist() for length in (1, 2, 7, 8, 9, 16, 31, 40, 63, 64)]
    with silence_exporters():
        write_openvino(model, TASK, tmp_path / "openvino-f32")
        write_int8(tmp_path / "openvino-f32", TASK, rows, tmp_path / "openvino-int8", smooth=False)
        write_onnx(model, TASK, tmp_path / "onnxruntime-f32")
        write_onnx_int8(tmp_path / "onnxruntime-f32", tmp_path / "onnxruntime-int8")
    reference = torch_outputs(model, TASK, rows)
    graphs = {"openvino-f32": GRAPH, "openvino-int8": GRAPH, "onnxruntime-f32": ONNX, "onnxruntime-int8": QUANTIZED}
    for form, graph in graphs.items():
        found = compare(open_graph(tmp_path / form / graph, form, OUTPUT, 2), TASK, rows, reference, 0, POSITIONS)
        if form.endswith("-f32"):
            require_bound(form, found, 1e-4)
        assert found["cosine_min"] > 0.95
