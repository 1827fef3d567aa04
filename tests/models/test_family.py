"""Each family against the stock model of `transformers`: the family's parts compute what the model computes."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from kdnas.distill.hidden_state import TeacherStates
from kdnas.distill.relation import QueriesKeysValues
from kdnas.errors import UsageError
from kdnas.models.arch import Arch
from kdnas.models.family import FAMILIES, family_of, require_family, shape_of, student_shape_of
from kdnas.models.pooling import pooling_of, write_modules
from kdnas.models.student import arch_of, student_config, student_from_teacher
from kdnas.models.teacher import Teacher, load_config, load_encoder

from .family_fixture import FFN, HEADS, HIDDEN, LAYERS, POSITIONS, TINY, tiny_model

# Submodules that compute the queries, keys and values of layer 2, by model type.
MAPS = {
    "distilbert": [f"transformer.layer.1.attention.{name}_lin" for name in "qkv"],
    "mpnet": [f"encoder.layer.1.attention.attn.{name}" for name in "qkv"],
}
BERT_MAPS = [f"encoder.layer.1.attention.self.{name}" for name in ("query", "key", "value")]


@pytest.fixture(scope="module", params=sorted(TINY))
def tiny(request: pytest.FixtureRequest, teacher: Teacher, tmp_path_factory: pytest.TempPathFactory) -> Teacher:
    """A tiny random model of each family."""
    return tiny_model(request.param, teacher, tmp_path_factory.mktemp(request.param))


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    """Ids and mask of two texts, one of them padded."""
    ids = torch.randint(1000, 2000, (2, 16), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 10:] = ids[1, 10:] = 0
    return ids, mask


def test_every_family_is_tested() -> None:
    assert set(TINY) == set(FAMILIES)


def test_states_equal_those_of_the_stock_model(tiny: Teacher, batch: tuple[Tensor, Tensor]) -> None:
    model = load_encoder(tiny.path)
    found = TeacherStates(model, [1, 2])(*batch)
    expected = model(input_ids=batch[0], attention_mask=batch[1], output_hidden_states=True).hidden_states
    assert torch.equal(found[1], expected[1])
    assert torch.equal(found[2], expected[2])
    assert len(family_of(model.config).layer_list(model)) == LAYERS


def test_queries_keys_and_values_equal_those_of_the_stock_model(tiny: Teacher, batch: tuple[Tensor, Tensor]) -> None:
    model = load_encoder(tiny.path)
    with torch.inference_mode():
        found = QueriesKeysValues(model, 2)(*batch)
    seen: dict[str, Tensor] = {}
    for letter, name in zip("QKV", MAPS.get(tiny.config["model_type"], BERT_MAPS), strict=True):
        model.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, letter=letter: seen.update({letter: output})
        )
    model(input_ids=batch[0], attention_mask=batch[1])
    for letter in "QKV":
        assert torch.equal(found[letter], seen[letter])


def test_layer_recomputed_from_its_parts_gives_the_next_state(tiny: Teacher, batch: tuple[Tensor, Tensor]) -> None:
    """The bias for relative positions, which MPNet has, is added separately."""
    model = load_encoder(tiny.path)
    layer, states = family_of(model.config).layer(model, 1), TeacherStates(model, [0, 1])(*batch)
    below = states[0].clone()
    split = lambda values: values.view(2, 16, HEADS, -1).transpose(1, 2)  # noqa: E731
    scores = split(layer.query(below)) @ split(layer.key(below)).transpose(-1, -2) / (HIDDEN // HEADS) ** 0.5
    if tiny.config["model_type"] == "mpnet":
        scores = scores + model.encoder.compute_position_bias(below)
    probabilities = scores.masked_fill(batch[1][:, None, None] == 0, -1e9).softmax(-1)
    attended = layer.output((probabilities @ split(layer.value(below))).transpose(1, 2).flatten(2))
    middle = layer.attention_norm(attended + below)
    found = layer.output_norm(layer.contract(torch.nn.functional.gelu(layer.expand(middle))) + middle)
    real = batch[1].bool()
    torch.testing.assert_close(found[real], states[1][real], rtol=1e-4, atol=1e-4)


def test_shape_equals_that_of_the_embedding_tables(tiny: Teacher) -> None:
    model = load_encoder(tiny.path)
    family, shape = family_of(model.config), shape_of(tiny.config)
    assert shape == shape_of(load_config(tiny.path))
    assert (shape.layers, shape.heads, shape.hidden, shape.ffn) == (LAYERS, HEADS, HIDDEN, FFN)
    assert shape.arch == arch_of(model.config) == tiny.shape
    tables = family.embeddings(model)
    assert (len(tables.words.weight), len(tables.positions.weight)) == (shape.vocabulary, shape.position_rows)
    assert shape.types == (0 if tables.types is None else len(tables.types.weight))
    assert shape.rows * HIDDEN + 2 * HIDDEN == sum(weight.numel() for weight in model.embeddings.parameters())


def test_texts_up_to_the_number_of_positions_run_and_longer_ones_fail(tiny: Teacher) -> None:
    model, positions = load_encoder(tiny.path), tiny.sizes.positions
    assert positions == POSITIONS - {"bert": 0, "distilbert": 0, "mpnet": 2}.get(tiny.config["model_type"], 1)
    ids = torch.full((1, positions + 1), 1000)
    assert model(ids[:, :-1]).last_hidden_state.shape[1] == positions
    with pytest.raises((IndexError, RuntimeError)):
        model(ids)


def test_student_gets_the_position_rows_that_the_teacher_uses(tiny: Teacher) -> None:
    """A student as wide as its teacher has the same embedding output at all positions."""
    model = load_encoder(tiny.path)
    student = student_from_teacher(Arch(2, 6, HIDDEN, FFN), model, seed=0).eval()
    expected = student_shape_of(tiny.config)
    assert shape_of(student.config) == shape_of(student_config(Arch(2, 6, HIDDEN, FFN), model.config))
    found = shape_of(student.config)
    assert (found.vocabulary, found.positions, found.rows) == (expected.vocabulary, expected.positions, expected.rows)
    ids = torch.randint(1000, 2000, (1, found.positions), generator=torch.Generator().manual_seed(1))
    ours, theirs = (one(ids, output_hidden_states=True).hidden_states[0] for one in (student, model))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_view_of_the_first_layers_does_not_change_the_model(tiny: Teacher, batch: tuple[Tensor, Tensor]) -> None:
    model = load_encoder(tiny.path)
    family, before = family_of(model.config), model(*batch).last_hidden_state
    view = family.first_layers(model, 1)
    assert (len(family.layer_list(view)), len(family.layer_list(model))) == (1, LAYERS)
    assert family.layer_list(view)[0] is family.layer_list(model)[0]
    assert torch.equal(model(*batch).last_hidden_state, before)


def test_error_for_an_unknown_model_type_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"teacher 'x'.*'gpt2'.*distilbert, mpnet"):
        require_family("gpt2", "teacher 'x'")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "first"),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode": "cls"}, "first"),
        ({"pooling_mode": ["mean"]}, "mean"),
    ],
)
def test_pooling_is_read_from_the_model_files(settings: dict[str, object], expected: str, tmp_path: Path) -> None:
    assert pooling_of(tmp_path) == "mean"
    write_modules(tmp_path, 48, 128)
    assert pooling_of(tmp_path) == "mean"
    write_modules(tmp_path, 48, 128, "first")
    assert pooling_of(tmp_path) == "first"
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    assert pooling_of(tmp_path) == expected


@pytest.mark.parametrize("settings", ['{"pooling_mode_max_tokens": true}', '{"pooling_mode": ["cls", "mean"]}', "{"])
def test_unsupported_pooling_is_rejected(settings: str, tmp_path: Path) -> None:
    write_modules(tmp_path, 48, 128)
    (tmp_path / "1_Pooling" / "config.json").write_text(settings)
    with pytest.raises(UsageError, match="1_Pooling"):
        pooling_of(tmp_path)
