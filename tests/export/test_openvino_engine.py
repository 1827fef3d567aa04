"""OpenVINO's graphs of fixed widths, and tables outside of them: when they are made, and that the answers stay the same."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openvino
import pytest

from export.openvino_engine import WIDEST, OpenvinoEngine, openvino_settings
from export.session import FORMS
from export.tables import LOOKUP, take_out_tables
from kdnas.artifact import Artifact

OUTPUT = ("last_hidden_state",)


def engine_of(artifact: Artifact, form: str = "openvino-f32") -> OpenvinoEngine:
    return OpenvinoEngine(str(artifact.path / FORMS[form]), form, OUTPUT, 1)


def sentence(width: int, batch: int = 1) -> tuple[np.ndarray, np.ndarray]:
    ids = np.random.default_rng(width).integers(5, 300, (1, width)).repeat(batch, 0)
    mask = np.ones_like(ids)
    mask[:, width - width // 4 :] = 0
    return ids, mask


@pytest.mark.parametrize("kind", ["encoder_export", "roberta_export"])
@pytest.mark.parametrize(("form", "atol"), [("openvino-f32", 1e-5), ("openvino-int8", 0.05)])
def test_a_width_of_its_own_answers_as_the_graph_of_any_shape(
    kind: str, form: str, atol: float, request: pytest.FixtureRequest
) -> None:
    engine = engine_of(request.getfixturevalue(kind), form)
    for width in (8, 24, 64):
        first = engine(*sentence(width))
        assert width not in engine._of_width
        again = engine(*sentence(width))
        assert width in engine._of_width
        assert again.shape == first.shape
        np.testing.assert_allclose(again, first, atol=atol)
        np.testing.assert_allclose(engine(*sentence(width)), again, atol=1e-6)


@pytest.mark.parametrize("kind", ["encoder_export", "roberta_export", "question_export"])
@pytest.mark.parametrize("form", ["openvino-f32", "openvino-int8"])
def test_tables_of_tokens_are_taken_out_and_the_answers_stay(
    kind: str, form: str, request: pytest.FixtureRequest
) -> None:
    artifact: Artifact = request.getfixturevalue(kind)
    core, path = openvino.Core(), str(artifact.path / FORMS[form])
    whole, cut = core.read_model(path), core.read_model(path)
    vocabulary = json.loads((artifact.path / "config.json").read_text())["vocab_size"]
    tables = take_out_tables(cut)
    assert {len(table) for table in tables.values()} == {vocabulary}
    assert tables["rows_0"].dtype == (np.int8 if form == "openvino-int8" else np.float32)
    assert not [
        op for op in cut.get_ordered_ops() if op.get_type_name() == LOOKUP and vocabulary in op.input_value(0).shape
    ]
    ids, mask = sentence(24, 3)
    given = {port.get_any_name(): np.zeros_like(ids) for port in whole.inputs} | {
        "input_ids": ids,
        "attention_mask": mask,
    }
    rows = {name: table[ids] for name, table in tables.items()}
    settings = openvino_settings(form, 1)
    expected = core.compile_model(whole, "CPU", settings)(given)
    got = core.compile_model(cut, "CPU", settings)(given | rows)
    for place in range(len(expected)):
        np.testing.assert_allclose(got[place], expected[place], atol=1e-5 if form == "openvino-f32" else 0.05)


def test_batches_odd_widths_and_long_texts_share_one_graph(encoder_export: Artifact) -> None:
    engine = engine_of(encoder_export)
    for _ in range(3):
        for shape in ((16, 2), (13, 1), (WIDEST + 8, 1)):
            engine(*sentence(*shape))
    assert engine._of_width == {}


def test_callers_that_meet_a_new_width_at_once_make_one_graph(encoder_export: Artifact) -> None:
    engine, made = engine_of(encoder_export), []
    compile_one = engine._compile
    engine._compile = lambda model: made.append(model) or compile_one(model)  # type: ignore[method-assign, func-returns-value]
    expected = engine(*sentence(32))
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: engine(*sentence(32)), range(32)))
    assert len(made) == 1
    for answer in answers:
        np.testing.assert_allclose(answer, expected, atol=1e-5)
