"""Relations and hidden states in one objective: the weighted sum, its gradients, and its effect on the last layer."""

from typing import Literal

import pytest
import torch

from kdnas.distill.hidden_state import HiddenStateLoss, TeacherStates, student_states
from kdnas.distill.loop import make_accelerator, make_optimizer, train_step
from kdnas.distill.mixed import MixedObjective
from kdnas.distill.options import DistillOptions, RefineOptions
from kdnas.distill.relation import QueriesKeysValues, RelationObjective, Relations
from kdnas.distill.validation import validate
from kdnas.errors import UsageError
from kdnas.models.arch import Arch
from kdnas.models.student import student_from_teacher
from kdnas.models.teacher import Teacher, load_encoder


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(1000, 2000, (8, 8), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, 3:] = 0
    return ids, mask


def make(tiny_teacher: Teacher, weight: float, main: Literal["pairs", "relations"] = "pairs") -> MixedObjective:
    teacher = load_encoder(tiny_teacher.path)
    student = student_from_teacher(Arch(2, 4, 48, 64), teacher, seed=0).eval()
    torch.manual_seed(1)
    top = teacher.config.num_hidden_layers
    anchor = HiddenStateLoss([(2, top - 1), (2, top)], 48, teacher.config.hidden_size, torch.tensor([2.0, 0.5]))
    return MixedObjective(student, teacher, anchor, Relations(top - 1, 12), (weight, 1.0), main)


@pytest.mark.parametrize("weight", [0.5, 4.0])
def test_loss_is_the_weighted_sum_of_both_losses(tiny_teacher: Teacher, weight: float) -> None:
    objective = make(tiny_teacher, weight)
    ids, mask = batch()
    teacher = load_encoder(tiny_teacher.path)
    relations = RelationObjective(objective.student, teacher, objective.relations)(ids, mask)
    targets = TeacherStates(teacher, [layer for _, layer in objective.loss.pairs])(ids, mask)
    pairs = objective.loss(student_states(objective.student, ids, mask), targets, mask)
    hidden = pairs.mean().detach()
    found = objective(ids, mask)
    assert found.shape == (5,)
    torch.testing.assert_close(found.mean(), weight * hidden + relations.mean())
    for part, expected in zip(objective.unscaled(found), (pairs, relations), strict=True):
        torch.testing.assert_close(part, expected)
    both = validate(objective, [(ids, mask)], make_accelerator("f32"))
    assert both["explained_variance"] == pytest.approx(1 - float(hidden))
    assert list(both["relations"].values()) == pytest.approx(relations.tolist())
    metrics = validate(make(tiny_teacher, weight, "relations"), [(ids, mask)], make_accelerator("f32"))
    assert metrics["validation_loss"] == pytest.approx(float(relations.detach().mean()))
    assert metrics["layers"] == {"2": pytest.approx(1 - float(hidden))}


def test_output_of_the_last_layer_is_trained_and_the_teacher_is_not(tiny_teacher: Teacher) -> None:
    objective = make(tiny_teacher, 1.0)
    teacher = objective.teacher._encoder
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    names = {name.split(".")[0] for name in objective.state_dict()}
    assert names == {"student", "loss"}
    output = objective.student.encoder.layer[-1].output.dense.weight.clone()
    optimizer, accelerator = make_optimizer(objective, 3e-3), make_accelerator("f32")
    losses = [train_step(objective, optimizer, accelerator, batch(), 3e-3) for _ in range(30)]
    assert float(losses[-1].mean()) < 0.7 * float(losses[0].mean())
    assert not torch.equal(objective.student.encoder.layer[-1].output.dense.weight, output)
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


@pytest.mark.slow
def test_hidden_state_loss_prevents_drift_of_the_output(tiny_teacher: Teacher) -> None:
    """The hidden-state loss of the last layer rises with relations alone, and falls with both losses."""
    ids, mask = batch()

    def hidden_loss(student: torch.nn.Module, anchor: HiddenStateLoss) -> float:
        with torch.no_grad():
            targets = TeacherStates(load_encoder(tiny_teacher.path), [layer for _, layer in anchor.pairs])(ids, mask)
            return float(anchor(student_states(student, ids, mask), targets, mask).mean())

    first = make(tiny_teacher, 1.0)
    optimizer, accelerator = make_optimizer(first, 3e-3), make_accelerator("f32")
    for _ in range(40):
        train_step(first, optimizer, accelerator, (ids, mask), 3e-3)
    start = hidden_loss(first.student, first.loss)
    state = {name: value.clone() for name, value in first.student.state_dict().items()}
    relations = RelationObjective(first.student, load_encoder(tiny_teacher.path), first.relations)
    optimizer = make_optimizer(relations, 3e-3)
    for _ in range(20):
        train_step(relations, optimizer, accelerator, (ids, mask), 3e-3)
    drifted = hidden_loss(first.student, first.loss)
    first.student.load_state_dict(state)
    optimizer = make_optimizer(first, 3e-3)
    for _ in range(20):
        train_step(first, optimizer, accelerator, (ids, mask), 3e-3)
    assert hidden_loss(first.student, first.loss) < start < drifted


def test_queries_keys_and_values_equal_those_of_the_layer(tiny_teacher: Teacher) -> None:
    objective = make(tiny_teacher, 1.0)
    ids, mask = batch()
    states = student_states(objective.student, ids, mask)
    own = objective.student.encoder.layer[-1].attention.self
    with torch.no_grad():
        found = QueriesKeysValues(objective.student, 2)(ids, mask)
        for name, layer in (("Q", own.query), ("K", own.key), ("V", own.value)):
            torch.testing.assert_close(found[name], layer(states[1]))


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_weights_out_of_range_are_rejected(weight: float) -> None:
    with pytest.raises(UsageError, match="hidden_state_weight is"):
        RefineOptions(hidden_state_weight=weight)
    with pytest.raises(UsageError, match="relation_weight is"):
        DistillOptions(relation_weight=weight)
