"""Eq. 1 against a naive loop and hand-computed values, and the teacher's states and variance."""

import pytest
import torch
from torch import Tensor

from kdnas.distill.hidden_state import (
    HiddenStateLoss,
    HiddenStateObjective,
    TeacherStates,
    loss_divisors,
    teacher_layer_variance,
)
from kdnas.distill.loop import make_accelerator, make_optimizer, train_step
from kdnas.distill.mapping import Mapping, layer_pairs
from kdnas.models.arch import Arch
from kdnas.models.family import family_of
from kdnas.models.student import student_from_teacher
from kdnas.models.teacher import Teacher, load_encoder

PAIRS = [(1, 2), (1, 3), (2, 5)]


def naive_loss(loss: HiddenStateLoss, student: list[Tensor], teacher: dict[int, Tensor], lengths: list[int]) -> Tensor:
    """The loss in a loop over pairs, sentences and tokens."""
    values = []
    for number, (student_layer, teacher_layer) in enumerate(loss.pairs):
        errors = []
        for row, length in enumerate(lengths):
            for token in range(length):
                predicted = loss.projections[number](student[student_layer][row, token])
                errors.append(((predicted - teacher[teacher_layer][row, token]) ** 2).mean())
        values.append(torch.stack(errors).mean() / loss.divisors[number])
    return torch.stack(values)


def random_states(seq_len: int = 6) -> tuple[list[Tensor], dict[int, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    student = [torch.randn(3, seq_len, 5, generator=generator) for _ in range(3)]
    return student, {layer: torch.randn(3, seq_len, 7, generator=generator) for layer in (2, 3, 5)}


@pytest.mark.parametrize("variance", [None, torch.tensor([0.5, 2.0, 3.0])])
def test_loss_equals_a_naive_loop(variance: Tensor | None) -> None:
    student, teacher = random_states()
    lengths = [6, 1, 4]
    mask = torch.tensor([[1] * n + [0] * (6 - n) for n in lengths])
    loss = HiddenStateLoss(PAIRS, 5, 7, variance)
    torch.testing.assert_close(loss(student, teacher, mask), naive_loss(loss, student, teacher, lengths))


def test_loss_equals_a_hand_computed_value() -> None:
    loss = HiddenStateLoss([(1, 1)], 1, 1, torch.tensor([2.0]))
    with torch.no_grad():
        loss.projections[0].weight.fill_(3.0)
        loss.projections[0].bias.fill_(1.0)
    student = [torch.zeros(1, 3, 1), torch.tensor([[[1.0], [2.0], [9.0]]])]
    teacher = {1: torch.tensor([[[2.0], [3.0], [5.0]]])}
    # 3*1+1-2 = 2, 3*2+1-3 = 4; the third is padding: (4 + 16) / 2 tokens / variance 2
    assert loss(student, teacher, torch.tensor([[1, 1, 0]])).tolist() == [5.0]


@pytest.mark.parametrize(("scale", "expected"), [("normalised", 3.0), ("mean", 7.0), ("sum", 14.0)])
def test_scales_of_the_loss_equal_hand_computed_values(scale: str, expected: float) -> None:
    # Raw errors: pair (1, 1) has (3*1 - 1)^2 = 4, pair (1, 2) has (1 - (1 - sqrt(10)))^2 = 10; variances 2 and 2.5.
    loss = HiddenStateLoss([(1, 1), (1, 2)], 1, 1, loss_divisors(scale, torch.tensor([2.0, 2.5])))
    with torch.no_grad():
        for projection, weight in zip(loss.projections, (3.0, 1.0), strict=True):
            projection.weight.fill_(weight)
            projection.bias.zero_()
    states = [torch.zeros(1, 1, 1), torch.ones(1, 1, 1)]
    teacher = {1: torch.ones(1, 1, 1), 2: torch.full((1, 1, 1), 1 - 10**0.5)}
    losses = loss(states, teacher, torch.ones(1, 1))
    assert float(losses.mean().detach()) == pytest.approx(expected)
    # The explained variance does not depend on the scale: 1 - (4 / 2 + 10 / 2.5) / 2.
    metrics = loss.metrics(losses.detach(), torch.tensor([2.0, 2.5]))
    assert metrics["validation_loss"] == pytest.approx(expected)
    assert metrics["explained_variance"] == pytest.approx(-2.0)


def test_sum_equals_eq_1_in_a_naive_loop() -> None:
    student, teacher = random_states()
    lengths = [6, 1, 4]
    mask = torch.tensor([[1] * n + [0] * (6 - n) for n in lengths])
    loss = HiddenStateLoss(PAIRS, 5, 7, loss_divisors("sum", torch.tensor([0.5, 2.0, 3.0])))
    raw = HiddenStateLoss(PAIRS, 5, 7, None)
    raw.projections = loss.projections
    torch.testing.assert_close(loss(student, teacher, mask).mean(), naive_loss(raw, student, teacher, lengths).sum())


def test_loss_ignores_padding() -> None:
    student, teacher = random_states()
    mask = torch.tensor([[1] * 6, [1] + [0] * 5, [1] * 4 + [0] * 2])
    loss = HiddenStateLoss(PAIRS, 5, 7, None)
    padded = mask == 0
    garbled = [state.clone() for state in student]
    garbled_teacher = {layer: state.clone() for layer, state in teacher.items()}
    for state in [*garbled, *garbled_teacher.values()]:
        state[padded] = 1e4
    assert torch.equal(loss(garbled, garbled_teacher, mask), loss(student, teacher, mask))


def test_variance_equals_the_mse_of_the_best_constant(tiny_teacher: Teacher) -> None:
    states = TeacherStates(load_encoder(tiny_teacher.path), [2, 4])
    generator = torch.Generator().manual_seed(0)
    batches = []
    for seq_len in (5, 9):
        ids = torch.randint(1000, 4000, (4, seq_len), generator=generator)
        mask = torch.ones_like(ids)
        mask[1, 3:] = 0
        batches.append((ids, mask))
    variance = teacher_layer_variance(states, batches)
    for layer in (2, 4):
        rows = torch.cat([states(ids, mask)[layer][mask.bool()] for ids, mask in batches])
        assert variance[layer] == pytest.approx(float(rows.var(0, unbiased=False).mean()), rel=1e-5)
        constant = HiddenStateLoss([(1, layer)], 1, 96, torch.tensor([variance[layer]]))
        with torch.no_grad():
            constant.projections[0].weight.zero_()
            constant.projections[0].bias.copy_(rows.mean(0))
        loss = constant(
            [torch.zeros(1, 1, 1), torch.zeros(1, len(rows), 1)], {layer: rows[None]}, torch.ones(1, len(rows))
        )
        assert loss.item() == pytest.approx(1.0, rel=1e-4)


def test_teacher_states_equal_those_of_the_whole_model(tiny_teacher: Teacher) -> None:
    model = load_encoder(tiny_teacher.path)
    ids = torch.randint(1000, 4000, (3, 8))
    mask = torch.ones_like(ids)
    mask[0, 5:] = 0
    with torch.no_grad():
        expected = model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
    found = TeacherStates(model, [3, 1, 3])(ids, mask)
    assert list(found) == [1, 3]
    assert all(torch.equal(found[layer], expected[layer]) for layer in found)


def test_view_with_fewer_layers_does_not_change_the_model(tiny_teacher: Teacher) -> None:
    model = load_encoder(tiny_teacher.path)
    view = family_of(model.config).first_layers(model, 2)
    assert (len(view.encoder.layer), len(model.encoder.layer)) == (2, 4)
    assert view.encoder.layer[1] is model.encoder.layer[1]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_training_lowers_the_loss_and_does_not_change_the_teacher(tiny_teacher: Teacher, precision: str) -> None:
    model = load_encoder(tiny_teacher.path)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    pairs = layer_pairs(2, 4, Mapping.UNIFORM_LAST)
    states = TeacherStates(model, [layer for _, layer in pairs])
    ids = torch.randint(1000, 2000, (8, 8), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    variance = teacher_layer_variance(states, [(ids, mask)])
    student = student_from_teacher(Arch(2, 4, 48, 64), model, seed=0).eval()
    loss = HiddenStateLoss(pairs, 48, 96, torch.tensor([variance[layer] for _, layer in pairs]))
    objective = HiddenStateObjective(student, states, loss)
    optimizer, accelerator = make_optimizer(objective, 3e-3), make_accelerator(precision)
    losses = [train_step(objective, optimizer, accelerator, (ids, mask), 3e-3) for _ in range(30)]
    assert losses[0].shape == (len(pairs),)
    assert float(losses[-1].mean()) < 0.6 * float(losses[0].mean())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in model.parameters())
    assert {name.split(".")[0] for name in objective.state_dict()} == {"student", "loss"}
