"""Rewritten ONNX graphs against the exporter's own and against PyTorch, for both families, f32 and int8."""

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from transformers import AutoModel

from kdnas.export.engines import compile_onnxruntime
from kdnas.export.onnx_form import write_onnx, write_onnx_int8
from kdnas.export.silence import silence_exporters
from kdnas.latency.engines import make_models
from kdnas.latency.engines.onnxruntime import OnnxruntimeModels
from kdnas.latency.onnx_graphs import OnnxTemplate, describe
from kdnas.latency.rewriting import TEMPLATE_SIZES, Sizes
from kdnas.models.arch import Arch
from kdnas.models.engine import ENGINES
from kdnas.models.student import student_config
from kdnas.models.teacher import load_config

from .graph_fixture import ARCHS, POSITIONS, VOCABULARY, assert_students_run, pool_part, templates

FORMS = ["onnxruntime-f32", "onnxruntime-int8"]
OUTPUTS = ("last_hidden_state",)


def trained(family: Path, arch: Arch) -> Any:
    """A model whose weights are all random with a large spread, so that each affects the output."""
    torch.manual_seed(1)
    model = AutoModel.from_config(student_config(arch, load_config(family)), add_pooling_layer=False).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return model


def exported(model: Any, form: str, folder: Path) -> bytes:
    """What `kdnas export` writes."""
    with silence_exporters():
        write_onnx(model, "feature-extraction", folder / "f32")
        if form.endswith("int8"):
            write_onnx_int8(folder / "f32", folder / "int8")
    return next((folder / form.removeprefix("onnxruntime-")).glob("*.onnx")).read_bytes()


def rewritten(family: Path, form: str, arch: Arch) -> tuple[bytes, dict[str, np.ndarray]]:
    pool = pool_part(arch)
    template = OnnxTemplate(templates(family, form) / arch.activation)
    return template.write(Sizes(arch, VOCABULARY, POSITIONS), pool)


def with_weights_of(graph: bytes, other: bytes) -> bytes:
    """The graph with another graph's weights, matched by the names of the nodes that read them."""
    ours, theirs = onnx.load_model_from_string(graph), onnx.load_model_from_string(other)
    indices = {weight.name: weight for weight in ours.graph.initializer}
    values = {weight.name: weight for weight in theirs.graph.initializer}
    nodes = {node.name: node for node in ours.graph.node}
    given = set()
    for node in theirs.graph.node:
        for index, name in enumerate(node.input):
            if name in values:
                mine = nodes[node.name].input[index]
                assert indices[mine].dims == values[name].dims
                indices[mine].CopyFrom(values[name])
                indices[mine].name = mine
                given.add(mine)
    assert given == set(indices)
    return ours.SerializeToString()


def sentences(count: int = 3) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(5, VOCABULARY, (2, length)) for length in (2, 9, 40)[:count]]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "roberta"], indirect=True)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("arch", ARCHS, ids=str)
def test_a_rewritten_graph_equals_the_exported_one(family: Path, form: str, arch: Arch, tmp_path: Path) -> None:
    """Every node is equal; with the exported weights, so are the outputs to PyTorch's or to the exported int8 graph's."""
    model = trained(family, arch)
    theirs = exported(model, form, tmp_path)
    ours, _ = rewritten(family, form, arch)
    assert sorted(map(str, describe(ours))) == sorted(map(str, describe(theirs)))
    run = compile_onnxruntime(with_weights_of(ours, theirs), OUTPUTS, 1)
    for ids in sentences():
        mask = np.ones_like(ids)
        mask[1, ids.shape[1] // 2 :] = 0
        if form.endswith("int8"):
            expected = compile_onnxruntime(theirs, OUTPUTS, 1)(ids, mask)
        else:
            with torch.inference_mode():
                inputs = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
                expected = model(**inputs).last_hidden_state.numpy()
        np.testing.assert_allclose(run(ids, mask)[mask == 1], expected[mask == 1], atol=1e-5)


@pytest.mark.parametrize("family", ["bert"], indirect=True)
def test_the_graph_with_the_template_s_sizes_equals_the_template(family: Path) -> None:
    for form in FORMS:
        folder = templates(family, form) / "gelu"
        pool = pool_part(TEMPLATE_SIZES.arch, 101, 59)
        graph, weights = OnnxTemplate(folder).write(TEMPLATE_SIZES, pool)
        ours = compile_onnxruntime(graph, OUTPUTS, 1, weights)
        theirs = compile_onnxruntime(str(next(folder.glob("*.onnx"))), OUTPUTS, 1)
        for ids in (ids % 101 for ids in sentences()):
            np.testing.assert_allclose(ours(ids, np.ones_like(ids)), theirs(ids, np.ones_like(ids)), atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "roberta"], indirect=True)
@pytest.mark.parametrize("form", FORMS)
def test_outputs_are_finite(family: Path, form: str) -> None:
    assert ENGINES[form].form == form
    models = make_models(ENGINES[form], load_config(family), 0, 1, templates(family, form))
    assert isinstance(models, OnnxruntimeModels)
    teacher = models.teacher()
    sentence = models.sentence(30, 0)
    first = teacher(**sentence)
    assert_students_run(models)
    np.testing.assert_array_equal(teacher(**sentence), first, "a student's weights have changed the teacher's")


@pytest.mark.parametrize("family", ["bert"], indirect=True)
def test_matrices_and_tables_are_external_and_do_not_overlap(family: Path) -> None:
    for form in FORMS:
        serialised, large = rewritten(family, form, Arch(4, 12, 288, 384))
        assert len(serialised) < 300_000
        tables = [(VOCABULARY, 288), (POSITIONS, 288)]
        matrices = [(288, 288)] * 4 + [(288, 384), (384, 288)]
        assert sorted(value.shape for value in large.values()) == sorted(tables + matrices * 4)
        assert {str(value.dtype) for value in large.values()} == (
            {"float32"} if form.endswith("f32") else {"int8", "uint8", "float32"}
        )
        for one, other in combinations(large.values(), 2):
            assert not np.may_share_memory(one, other)
        model = onnx.load_model_from_string(serialised)
        for weight in model.graph.initializer:
            assert (weight.data_location == TensorProto.EXTERNAL) == (weight.name in large)
            if weight.name in large:
                assert tuple(weight.dims) == large[weight.name].shape
                weight.CopyFrom(onnx.numpy_helper.from_array(large[weight.name], weight.name))
        inside = compile_onnxruntime(model.SerializeToString(), OUTPUTS, 1)
        outside = compile_onnxruntime(serialised, OUTPUTS, 1, large)
        for ids in sentences():
            np.testing.assert_array_equal(outside(ids, np.ones_like(ids)), inside(ids, np.ones_like(ids)))


@pytest.mark.parametrize("family", ["bert"], indirect=True)
def test_too_few_layers_are_refused(family: Path) -> None:
    with pytest.raises(ValueError, match="layers is 2"):
        OnnxTemplate(templates(family, FORMS[0]) / "gelu").write(
            Sizes(Arch(2, 4, 48, 96), 9, 9), pool_part(Arch(3, 4, 48, 96))
        )
