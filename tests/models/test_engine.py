"""The registry of engines. No code may parse engine names."""

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdnas.errors import UsageError
from kdnas.export.engines import RUNTIMES
from kdnas.export.folder import FORMS, RUN_TIME_FORMS, graph_of
from kdnas.export.recipes import FLOAT, RECIPES
from kdnas.latency.engines import timer_of
from kdnas.models.engine import ENGINES, Engine, Precision, engine_of, require_native, session_engines
from kdnas.models.table import weight_bytes

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("kdnas", "latency", "export", "evaluation", "serving", "filtering", "gates")
METHODS = {"startswith", "endswith", "partition", "rpartition", "split", "rsplit", "removeprefix", "removesuffix"}
PARTS = {*(engine.runtime for engine in ENGINES.values()), *map(str, Precision)}


def test_registry_names_equal_engine_names() -> None:
    assert all(name == str(engine) for name, engine in ENGINES.items())
    assert str(Engine("openvino", Precision.BF16)) == "openvino-bf16"
    with pytest.raises(UsageError, match=r"engine 'tensorrt': allowed are pytorch-f32, .*cuda-bf16"):
        engine_of("tensorrt")


def test_every_engine_has_a_runtime() -> None:
    assert {ENGINES[name].runtime for name in session_engines()} == set(RUNTIMES)
    for engine in ENGINES.values():
        timer = timer_of(engine)
        assert callable(timer.make_models)
        assert callable(timer.require)
        assert (timer.product_chain is not None) == (engine.device == "cpu")


def test_forms_on_disk_keep_their_names_and_files() -> None:
    assert FORMS == {
        "openvino-int8": "openvino/int8/openvino_model.xml",
        "openvino-f32": "openvino/openvino_model.xml",
        "onnxruntime-int8": "onnx-int8/model_quantized.onnx",
        "onnxruntime-f32": "onnx/model.onnx",
    }
    assert list(FORMS) == [
        "openvino-int8",
        "openvino-f32",
        "onnxruntime-int8",
        "onnxruntime-f32",
    ]  # the export's digest depends on this order
    assert RUN_TIME_FORMS == {"openvino-bf16": "openvino-f32"}
    assert graph_of("openvino-bf16") == FORMS["openvino-f32"]
    assert FLOAT == {"openvino-int8": "openvino-f32", "onnxruntime-int8": "onnxruntime-f32"}
    assert set(RECIPES) == {form for form in FORMS if ENGINES[form].quantised}


def test_bytes_per_weight() -> None:
    read = {name: engine.bytes_per_weight for name, engine in ENGINES.items()}
    assert (read["openvino-f32"], read["openvino-bf16"], read["openvino-int8"], read["cuda-bf16"]) == (4, 2, 1, 2)
    stored = {name: weight_bytes(name) for name in (*ENGINES, "", "of-another-version")}
    assert {name for name, size in stored.items() if size == 1} == {"openvino-int8", "onnxruntime-int8"}
    assert set(stored.values()) == {1, 4}


def test_emulated_precision_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdnas.models.engine.has_bf16", lambda: False)
    for name, engine in ENGINES.items():
        if engine.precision is not Precision.BF16:
            require_native(engine)
        else:
            with pytest.raises(UsageError, match=rf"{name}.*{engine.float_name}"):
                require_native(engine)


def test_names_are_json_strings() -> None:
    assert json.dumps({Precision.INT8: str(ENGINES["openvino-int8"])}) == '{"int8": "openvino-int8"}'


def parsing(code: str) -> Iterator[str]:
    """Expressions that parse an engine name, such as `form.endswith("-int8")` and `"bf16" in form`."""
    for node in ast.walk(ast.parse(code)):
        texts: list[ast.expr] = []
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in METHODS:
            texts = [one for given in node.args for one in (given.elts if isinstance(given, ast.Tuple) else [given])]
        elif isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In | ast.NotIn):
            texts = [node.left] if not isinstance(node.comparators[0], ast.Tuple | ast.Set | ast.List) else []
        for text in texts:
            value = text.value if isinstance(text, ast.Constant) else None
            if isinstance(value, str) and (value == "-" or value.strip("- ") in PARTS):
                yield ast.unparse(node)


def test_no_code_parses_engine_names() -> None:
    assert (
        len(list(parsing('x.endswith("-int8")\ny.startswith(("openvino-", "a"))\n"bf16" in z\nname.partition("-")')))
        == 4
    )
    assert not list(parsing('x.endswith(".gz")\nx.split(" ")\ny in ("f32", "bf16")'))
    files = [file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py")]
    found = {str(file): calls for file in files if (calls := list(parsing(file.read_text())))}
    assert files
    assert not found
