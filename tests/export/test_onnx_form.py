"""The ONNX forms: which operators are quantised, tables that are mapped, and loading with Optimum."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from kdnas.export.engines import open_graph
from kdnas.export.folder import FORMS, LAYOUT, graph_files
from kdnas.export.onnx_form import QUANTIZED, map_tables, write_onnx_int8
from kdnas.export.silence import silence_exporters
from kdnas.store.artifact import Artifact


@pytest.mark.parametrize(("kind", "heads"), [("encoder_export", 0), ("classifier_export", 2), ("roberta_export", 0)])
def test_products_with_weights_and_word_embeddings_are_int8(
    kind: str, heads: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Quantises directly, because the recipe that an export chooses depends on timings."""
    artifact: Artifact = request.getfixturevalue(kind)
    source = artifact.path / FORMS["onnxruntime-f32"]
    with silence_exporters():
        write_onnx_int8(source.parent, tmp_path / "int8")
    float_graph, graph = onnx.load(source).graph, onnx.load(tmp_path / "int8" / QUANTIZED).graph
    weights = {weight.name: weight for weight in graph.initializer}
    nodes = Counter(node.op_type for node in graph.node)
    layers = Counter(node.op_type for node in float_graph.node)["Softmax"]
    assert nodes["MatMulInteger"] == 6 * layers + heads
    assert nodes["MatMul"] == 2 * layers
    types = {name: weight.data_type for name, weight in weights.items() if name.endswith("_quantized")}
    assert Counter(types.values()) == {TensorProto.INT8: 6 * layers + heads, TensorProto.UINT8: 1}
    for node in graph.node:
        if node.op_type == "MatMulInteger":
            matrix, zero = weights[node.input[1]], weights[node.input[3]]
            assert list(zero.dims) == [matrix.dims[1]], "one scale per channel"
            assert not any(onnx.numpy_helper.to_array(zero))


def test_optimum_loads_the_onnx_folders(encoder_export: Artifact) -> None:
    from optimum.onnxruntime import ORTModelForFeatureExtraction

    for form in ("onnxruntime-f32", "onnxruntime-int8"):
        model = ORTModelForFeatureExtraction.from_pretrained((encoder_export.path / FORMS[form]).parent)
        assert model.config.hidden_size == 96


def test_weights_take_seven_bits_on_cpus_without_vnni(
    encoder_export: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = (encoder_export.path / FORMS["onnxruntime-f32"]).parent
    largest = []
    for vnni in (True, False):
        monkeypatch.setattr("kdnas.export.onnx_form.has_vnni", lambda vnni=vnni: vnni)
        with silence_exporters():
            write_onnx_int8(source, tmp_path / str(vnni))
        graph = onnx.load(tmp_path / str(vnni) / QUANTIZED).graph
        matrices = [onnx.numpy_helper.to_array(one) for one in graph.initializer if one.data_type == TensorProto.INT8]
        largest.append(max(int(np.abs(matrix.astype(np.int16)).max()) for matrix in matrices if matrix.ndim == 2))
    assert largest[1] <= 64 < largest[0] <= 128


@pytest.mark.parametrize("form", ["onnxruntime-f32", "onnxruntime-int8"])
def test_mapped_tables_give_the_same_outputs(
    form: str, encoder_export: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = tmp_path / Path(FORMS[form]).name
    onnx.save(onnx.load(encoder_export.path / FORMS[form]), graph)  # all in one file
    ids = np.array([[2, 17, 3999, 3, 0]])
    mask = (ids > 0).astype(np.int64)

    def states() -> np.ndarray:
        return open_graph(graph, form, ("last_hidden_state",), 1)(ids, mask)

    expected, whole = states(), graph.stat().st_size
    monkeypatch.setattr("kdnas.export.onnx_form.MAPPED_BYTES", 300_000)  # the words, not the positions
    for _ in range(2):  # the second time nothing is left to do
        map_tables(graph)
        _, data = graph_files(graph)
        width = 4 if form == "onnxruntime-f32" else 1
        assert data.stat().st_size == 4000 * 96 * width
        assert graph.stat().st_size < whole - data.stat().st_size + 1000
        assert np.array_equal(states(), expected)
    assert {file.name for file in tmp_path.iterdir()} == {graph.name, data.name}


def test_an_interrupted_mapping_leaves_the_graph_whole(
    encoder_export: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = tmp_path / "model.onnx"
    onnx.save(onnx.load(encoder_export.path / FORMS["onnxruntime-f32"]), graph)
    before = graph.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            map_tables(graph)
    assert graph.read_bytes() == before
    map_tables(graph)
    assert graph.stat().st_size < len(before)
    assert [file.name for file in graph_files(graph)] == ["model.onnx", "model.onnx_data"]


def test_small_tables_stay_in_the_graph(encoder_export: Artifact, tmp_path: Path) -> None:
    graph = tmp_path / "model.onnx"
    onnx.save(onnx.load(encoder_export.path / FORMS["onnxruntime-int8"]), graph)
    before = graph.read_bytes()
    map_tables(graph)
    assert graph.read_bytes() == before
    assert graph_files(graph) == (graph,)


def test_an_export_maps_its_tables(encoder_export: Artifact) -> None:
    graph = encoder_export.path / FORMS["onnxruntime-f32"]
    assert [file.name for file in graph_files(graph)] == ["model.onnx", "model.onnx_data"]
    assert "onnx/model.onnx_data" in encoder_export.manifest["files"]
    assert encoder_export.manifest["config"]["layout"] == LAYOUT  # an export of another layout is made again
