"""Rewritten graphs against the exporter's own, for both families, all activations, f32 and int8."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
import torch
from transformers import AutoModel

from kdnas.errors import UsageError
from kdnas.export.openvino_form import write_int8, write_openvino
from kdnas.export.silence import silence_exporters
from kdnas.latency.engines import require_engine
from kdnas.latency.engines.openvino import OpenvinoModels
from kdnas.latency.openvino_graphs import GraphTemplate, describe
from kdnas.latency.protocol import LatencyOptions
from kdnas.latency.rewriting import TEMPLATE_SIZES, Sizes, teacher_shape
from kdnas.latency.run import family_in_graph
from kdnas.latency.template import as_if_trained
from kdnas.models.arch import Arch
from kdnas.models.engine import ENGINES
from kdnas.models.student import student_config
from kdnas.models.teacher import load_config

from .graph_fixture import ARCHS, POSITIONS, VOCABULARY, assert_students_run, pool_part, templates


def exported(family: Path, arch: Arch, form: str, folder: Path) -> Path:
    """What `kdnas export` writes for this architecture."""
    torch.manual_seed(1)
    config = student_config(arch, load_config(family))
    model = as_if_trained(AutoModel.from_config(config, add_pooling_layer=False).eval())
    rng = np.random.default_rng(0)
    with silence_exporters():
        write_openvino(model, "feature-extraction", folder / "f32")
        if form == "openvino-int8":
            rows = [rng.integers(5, VOCABULARY, length).tolist() for length in range(8, 40, 2)]
            write_int8(folder / "f32", "feature-extraction", rows, folder / "int8")
    return folder / form.removeprefix("openvino-")


def canonical(rows: list[tuple[Any, ...]]) -> list[str]:
    """Ignores the order of nodes, which differs between exports, and the type of the tables' ranges."""
    return sorted(map(str, rows))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "form"),
    [
        ("bert", "openvino-f32"),
        ("bert", "openvino-int8"),
        ("roberta", "openvino-f32"),
        pytest.param("roberta", "openvino-int8", marks=pytest.mark.exhaustive),
    ],
    indirect=["family"],
)
def test_a_rewritten_graph_equals_the_exported_one(family: Path, form: str, tmp_path: Path) -> None:
    for arch in ARCHS[1:2] if form == "openvino-int8" else ARCHS[:2]:
        pool = pool_part(arch)
        xml = GraphTemplate(templates(family, form) / arch.activation).write(Sizes(arch, VOCABULARY, POSITIONS), pool)
        theirs = exported(family, arch, form, tmp_path / f"{arch}")
        assert canonical(describe(xml)) == canonical(describe((theirs / "openvino_model.xml").read_bytes()))
        ours = openvino.Core().read_model(xml, openvino.Tensor(pool.bytes, shared_memory=True))
        expected = openvino.Core().read_model(str(theirs / "openvino_model.xml"))
        types = [[op.get_type_name() for op in model.get_ordered_ops()] for model in (ours, expected)]
        assert sorted(types[0]) == sorted(types[1])


@pytest.mark.parametrize("family", ["bert"], indirect=True)
def test_outputs_are_equal_with_the_exported_weights(family: Path) -> None:
    """With the template's sizes, the rewritten graph equals the template: same constants, same outputs."""
    folder = templates(family, "openvino-f32") / "gelu"
    pool = pool_part(TEMPLATE_SIZES.arch, 101, 59)
    xml = GraphTemplate(folder).write(TEMPLATE_SIZES, pool)
    ours = openvino.Core().compile_model(openvino.Core().read_model(xml, openvino.Tensor(pool.bytes)), "CPU")
    theirs = openvino.Core().compile_model(str(folder / "openvino_model.xml"), "CPU")
    rng = np.random.default_rng(0)
    for length in (2, 9, 40):
        ids = rng.integers(5, 101, (1, length))
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        np.testing.assert_allclose(ours(feeds)[0], theirs(feeds)[0], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "roberta"], indirect=True)
def test_outputs_are_finite(family: Path) -> None:
    for engine in ("openvino-f32", "openvino-int8"):
        models = OpenvinoModels(ENGINES[engine], load_config(family), 0, 1, templates(family, engine))
        assert_students_run(models)


@pytest.mark.parametrize("family", ["bert"], indirect=True)
def test_large_constants_do_not_overlap(family: Path) -> None:
    arch = Arch(4, 12, 288, 384)
    pool = pool_part(arch, 500, 64)
    taken: list[tuple[int, int]] = []
    take = pool.take
    table = pool.take_table
    pool.take = lambda size: (taken.append(take(size)), taken[-1])[1]  # type: ignore[method-assign,func-returns-value]
    pool.take_table = lambda size: (taken.append(table(size)), taken[-1])[1]  # type: ignore[method-assign,func-returns-value]
    GraphTemplate(templates(family, "openvino-f32") / "gelu").write(Sizes(arch, 500, 64), pool)
    assert len(taken) >= 6 * 4 + 1
    ends = sorted((first, first + size) for first, size in taken)
    assert all(end <= start for (_, end), (start, _) in pairwise(ends))


@pytest.mark.parametrize("family", ["bert"], indirect=True)
def test_too_few_layers_are_refused(family: Path) -> None:
    with pytest.raises(ValueError, match="layers is 2"):
        GraphTemplate(templates(family, "openvino-f32") / "gelu").write(
            Sizes(Arch(2, 4, 48, 96), 9, 9), pool_part(Arch(3, 4, 48, 96))
        )
    config = load_config(family)
    config.num_hidden_layers = 2
    with pytest.raises(UsageError, match="the teacher has 2 layers"):
        teacher_shape(config)


def test_unavailable_engines_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdnas.models.engine.has_bf16", lambda: False)
    with pytest.raises(UsageError, match=r"neither AVX512-BF16 nor AMX.*openvino-f32"):
        require_engine("openvino-bf16")
    with pytest.raises(UsageError, match="engine 'tensorrt': allowed are pytorch-f32"):
        require_engine("tensorrt")


@pytest.mark.parametrize(
    ("model_type", "engine", "expected"),
    [("mpnet", "openvino-f32", "bert"), ("mpnet", "pytorch-f32", None), ("bert", "openvino-f32", None)],
)
def test_a_teacher_of_another_family_than_its_students_is_reported(
    model_type: str, engine: str, expected: str | None
) -> None:
    """Compiled engines have no graph of such a teacher: they time a BERT of its sizes."""
    assert family_in_graph({"model_type": model_type}, LatencyOptions(engine=engine)) == expected
