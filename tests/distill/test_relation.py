"""MiniLM-v2 relations against a loop over examples, heads and queries, and against hand-computed values."""

from math import exp, log, sqrt

import pytest
import torch
from torch import Tensor
from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel, XLMRobertaConfig, XLMRobertaModel

from kdnas.distill.loop import make_accelerator, make_optimizer, train_step
from kdnas.distill.options import RefineOptions
from kdnas.distill.relation import (
    QueriesKeysValues,
    RelationObjective,
    Relations,
    relation_loss,
    resolve_relation_heads,
    resolve_teacher_layer,
)
from kdnas.errors import UsageError
from kdnas.models.arch import Arch
from kdnas.models.student import student_from_teacher
from kdnas.models.teacher import Teacher, load_encoder

Pair = tuple[Tensor, Tensor]


def naive_relation_loss(teacher: Pair, student: Pair, heads: int, lengths: list[int]) -> float:
    """KL in a loop over examples, heads and real queries, without padding."""
    values = []
    for row, length in enumerate(lengths):
        per_head = []
        for head in range(heads):
            parts = []
            for pair in (teacher, student):
                width = pair[0].shape[-1] // heads
                one, other = (vectors[row, :length, head * width : (head + 1) * width] for vectors in pair)
                parts.append(torch.softmax(one @ other.T / sqrt(width), dim=-1))
            per_head.append((parts[0] * (parts[0] / parts[1]).log()).sum(-1))
        values += torch.stack(per_head).mean(0).tolist()
    return sum(values) / len(values)


def made(width: int, generator: torch.Generator) -> Tensor:
    return torch.randn(4, 7, width, generator=generator)


@pytest.mark.parametrize("heads", [1, 3, 5, 15])
def test_loss_equals_a_naive_loop_with_padding_and_any_number_of_heads(heads: int) -> None:
    generator = torch.Generator().manual_seed(heads)
    teacher, student = ((made(30, generator), made(30, generator)), (made(15, generator), made(15, generator)))
    lengths = [7, 1, 3, 5]
    mask = torch.tensor([[1] * n + [0] * (7 - n) for n in lengths])
    value = relation_loss(teacher, student, heads, mask)
    assert value.item() == pytest.approx(naive_relation_loss(teacher, student, heads, lengths), rel=1e-4)


def test_loss_equals_a_hand_computed_value() -> None:
    # d_r = 1. Teacher vectors (1, 0): rows softmax(1, 0) and softmax(0, 0). Student vectors 0: both rows (1/2, 1/2).
    teacher, student = torch.tensor([[[1.0], [0.0], [7.0]]]), torch.tensor([[[0.0], [0.0], [-3.0]]])
    high = exp(1) / (exp(1) + 1)
    divergence = high * log(2 * high) + (1 - high) * log(2 * (1 - high))
    value = relation_loss((teacher, teacher), (student, student), 1, torch.tensor([[1, 1, 0]]))
    assert value.item() == pytest.approx(divergence / 2, rel=1e-5)


def test_loss_and_gradient_ignore_padding() -> None:
    generator = torch.Generator().manual_seed(0)
    teacher, student = torch.randn(2, 5, 12, generator=generator), torch.randn(2, 5, 6, generator=generator)
    mask = torch.tensor([[1] * 5, [1, 1, 0, 0, 0]])
    garbled, garbled_teacher = student.clone(), teacher.clone()
    garbled[mask == 0], garbled_teacher[mask == 0] = 50.0, -50.0
    garbled.requires_grad_(True)
    student.requires_grad_(True)
    losses = [relation_loss((t, t), (s, s), 3, mask) for t, s in ((teacher, student), (garbled_teacher, garbled))]
    torch.testing.assert_close(losses[0], losses[1])
    for loss in losses:
        loss.backward()
    torch.testing.assert_close(student.grad, garbled.grad)
    assert not garbled.grad[mask == 0].any()
    assert garbled.grad[mask == 1].any()


def test_loss_of_equal_vectors_is_zero() -> None:
    vectors = torch.randn(2, 5, 12)
    assert relation_loss((vectors, vectors), (vectors, vectors), 4, torch.ones(2, 5)).item() == pytest.approx(
        0.0, abs=1e-7
    )


def test_loss_is_float32_under_autocast() -> None:
    vectors = torch.randn(2, 5, 12, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert relation_loss((vectors, vectors), (vectors.flip(1), vectors), 4, torch.ones(2, 5)).dtype == torch.float32


def test_each_relation_uses_the_tensors_of_its_two_letters() -> None:
    generator = torch.Generator().manual_seed(0)
    ours, theirs = ({name: made(12, generator) for name in "QKV"} for _ in range(2))
    lengths = [7, 1, 3, 5]
    mask = torch.tensor([[1] * n + [0] * (7 - n) for n in lengths])
    names = ("QK", "KQ", "VV", "QV")
    found = Relations(1, 4, names).losses(theirs, ours, mask)
    for value, (one, other) in zip(found.tolist(), names, strict=True):
        naive = naive_relation_loss((theirs[one], theirs[other]), (ours[one], ours[other]), 4, lengths)
        assert value == pytest.approx(naive, rel=1e-4)


@pytest.mark.parametrize("names", [(), ("QQ", "QQ"), ("AB",), ("Q",)])
def test_invalid_relations_are_rejected(names: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match=r"relations is .* KK, KQ, KV, QK"):
        RefineOptions(relations=names)


def test_relation_heads() -> None:
    assert resolve_relation_heads(None, 576, 768) == 48
    assert resolve_relation_heads(None, 384, 384) == 48
    assert resolve_relation_heads(None, 60, 96) == 12
    assert resolve_relation_heads(24, 288, 384) == 24
    with pytest.raises(UsageError, match=r"relation_heads is 48.*60.*96.*valid counts: 1, 2, 3, 4, 6, 12$"):
        resolve_relation_heads(48, 60, 96)
    with pytest.raises(UsageError, match="valid counts"):
        resolve_relation_heads(0, 60, 96)


def test_teacher_layer() -> None:
    assert [resolve_teacher_layer(None, layers) for layers in (12, 6, 1)] == [11, 5, 1]
    assert resolve_teacher_layer(12, 12) == 12
    with pytest.raises(UsageError, match="teacher_layer is 7; this teacher's layers are 1 to 6"):
        resolve_teacher_layer(7, 6)


@pytest.mark.parametrize(
    ("config", "model"),
    [(BertConfig, BertModel), (RobertaConfig, RobertaModel), (XLMRobertaConfig, XLMRobertaModel)],
)
@pytest.mark.parametrize("layer", [1, 3])
def test_queries_keys_and_values_equal_those_of_the_layer(config: type, model: type, layer: int) -> None:
    shape = {"num_hidden_layers": 3, "num_attention_heads": 4, "hidden_size": 24, "intermediate_size": 32}
    encoder = model(config(vocab_size=50, **shape), add_pooling_layer=False).eval()
    ids = torch.randint(3, 50, (2, 6))
    mask = torch.tensor([[1] * 6, [1, 1, 1, 0, 0, 0]])
    captured: dict[str, Tensor] = {}
    attention = encoder.encoder.layer[layer - 1].attention.self
    for name in ("query", "key", "value"):
        getattr(attention, name).register_forward_hook(lambda _m, _i, out, name=name: captured.setdefault(name, out))
    with torch.no_grad():
        encoder(input_ids=ids, attention_mask=mask)
        found = QueriesKeysValues(encoder, layer)(ids, mask)
    for name, value in captured.items():
        torch.testing.assert_close(found[name[0].upper()], value)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_training_lowers_the_loss_and_does_not_change_the_teacher(tiny_teacher: Teacher, precision: str) -> None:
    teacher = load_encoder(tiny_teacher.path)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    student = student_from_teacher(Arch(2, 4, 48, 64), teacher, seed=0).eval()
    untrained = student.encoder.layer[-1].output.dense.weight.clone()
    objective = RelationObjective(student, teacher, Relations(3, 12))
    assert set(objective.state_dict()) == {f"student.{name}" for name in student.state_dict()}
    ids = torch.randint(1000, 2000, (8, 8), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, 3:] = 0
    optimizer, accelerator = make_optimizer(objective, 3e-3), make_accelerator(precision)
    losses = [train_step(objective, optimizer, accelerator, (ids, mask), 3e-3) for _ in range(30)]
    assert losses[0].shape == (3,)
    assert float(losses[-1].mean()) < 0.7 * float(losses[0].mean())
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert torch.equal(student.encoder.layer[-1].output.dense.weight, untrained)
