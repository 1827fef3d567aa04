"""Parts of the training loop: learning rate, optimizer groups, precision, batches, step timing, throughput, options."""

import copy

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from kdnas.distill.batches import TrainBatches, to_tensors
from kdnas.distill.loop import (
    backward,
    lr_factor,
    make_accelerator,
    make_optimizer,
    resolve_precision,
    seconds_per_step,
)
from kdnas.distill.options import DistillOptions, LoopOptions, RefineOptions
from kdnas.distill.throughput import measure_tokens_per_second
from kdnas.distill.validation import mean_losses, sample_batches
from kdnas.errors import UsageError
from kdnas.models.arch import Arch
from kdnas.models.student import new_student
from kdnas.models.teacher import Teacher, load_config, load_encoder
from kdnas.text.corpus import Corpus


class Square(nn.Module):
    """A loss with one squared weight per part, after dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[1.0, 2.0]]))
        self.dropout = nn.Dropout(0.5)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        values: Tensor = self.dropout(self.weight).square().sum(0) * attention_mask.float().mean()
        return values


def test_learning_rate_rises_and_falls_linearly() -> None:
    fractions = [lr_factor(step, 20, 0.2) for step in range(20)]
    assert fractions[:4] == [0.25, 0.5, 0.75, 1.0]
    assert fractions[4] == 1.0
    assert np.allclose(np.diff(fractions[4:]), -1 / 16)
    assert fractions[-1] == pytest.approx(1 / 16)
    assert [lr_factor(0, 1, fraction) for fraction in (0.0, 0.5)] == [1.0, 1.0]


def test_cosine_schedule() -> None:
    fractions = [lr_factor(step, 20, 0.2, "cosine") for step in range(20)]
    assert fractions[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert fractions[12] == pytest.approx(0.5)  # halfway
    assert all(np.diff(fractions[4:]) < 0)
    assert 0 < fractions[-1] < 1 / 16


def test_biases_and_norms_are_not_decayed() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))
    module[0].weight.requires_grad_(True)
    decayed, plain = make_optimizer(module, 0.1, weight_decay=0.5).param_groups
    assert [tuple(p.shape) for p in decayed["params"]] == [(3, 2)]
    assert (decayed["weight_decay"], plain["weight_decay"], len(plain["params"])) == (0.5, 0.0, 3)
    assert decayed["betas"] == (0.9, 0.98)
    assert decayed["fused"]


def test_both_precisions_work_in_one_process() -> None:
    layer, rows = nn.Linear(4, 4), torch.randn(2, 4)
    half, full = make_accelerator("bf16"), make_accelerator("f32")
    for accelerator, dtype in ((half, torch.bfloat16), (full, torch.float32), (half, torch.bfloat16)):
        with accelerator.autocast():
            assert layer(rows).dtype == dtype


def test_accelerator_state_of_other_code_is_reset() -> None:
    AcceleratorState._reset_state()
    Accelerator(cpu=True, mixed_precision="no")
    with make_accelerator("bf16").autocast():
        assert nn.Linear(4, 4)(torch.randn(2, 4)).dtype == torch.bfloat16


def test_automatic_precision_depends_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdnas.distill.loop.has_bf16", lambda: False)
    assert [resolve_precision(name) for name in ("auto", "bf16", "f32")] == ["f32", "bf16", "f32"]
    monkeypatch.setattr("kdnas.distill.loop.has_bf16", lambda: True)
    assert resolve_precision("auto") == "bf16"


def test_batches_contain_every_sentence_once_within_the_limit(corpus: Corpus) -> None:
    options = LoopOptions(batch_tokens=2048, batch_sentences=16)
    one, other = (TrainBatches(corpus.train, corpus.pad_id, options, None).epoch(1) for _ in range(2))
    assert max(map(len, one)) == 16
    assert sorted(np.concatenate(one).tolist()) == list(range(len(corpus.train)))
    assert all(np.array_equal(*batches) for batches in zip(one, other, strict=True))


def test_accumulated_losses_and_gradients_equal_the_mean_over_batches() -> None:
    module, accelerator = Square().eval(), make_accelerator("f32")
    ids = torch.ones(1, 4, dtype=torch.long)
    batches = [(ids, torch.ones(1, 4)), (ids, torch.tensor([[1, 0, 0, 0]]))]
    parts = torch.stack([backward(module, accelerator, batch, 1 / 2) for batch in batches]).sum(0)
    assert parts.tolist() == pytest.approx([0.5 * (1 + 0.25), 0.5 * (4 + 4 * 0.25)])
    assert module.weight.grad is not None
    # d/dw of the mean over two parts of w^2, times the mean fraction of real tokens
    assert module.weight.grad.flatten().tolist() == pytest.approx([1.0 * 0.625, 2.0 * 0.625])


def test_timing_steps_does_not_change_weights_or_random_state() -> None:
    module = Square()
    before, rng = copy.deepcopy(module.state_dict()), torch.get_rng_state()
    batch = (torch.ones(2, 4, dtype=torch.long), torch.ones(2, 4))
    assert seconds_per_step(module, [batch] * 5, LoopOptions(weight_decay=0.5), warm=2) > 0
    assert torch.equal(module.weight, before["weight"])
    assert torch.equal(torch.get_rng_state(), rng)
    assert module.weight.grad is None


def test_validation_weights_batches_by_tokens_and_has_no_dropout(corpus: Corpus) -> None:
    module = Square().train()
    ids = torch.ones(1, 4, dtype=torch.long)
    batches = [(ids, torch.tensor([[1, 1, 1, 1]])), (ids, torch.tensor([[1, 0, 0, 0]]))]
    losses = mean_losses(module, batches, make_accelerator("f32"))
    mean = (4 * 1.0 + 1 * 0.25) / 5
    assert losses.tolist() == pytest.approx([mean, 4 * mean])
    assert module.training
    assert module.dropout.training


def test_validation_sentences_are_the_same_every_time(corpus: Corpus) -> None:
    first, second = (sample_batches(corpus.validation, 50, 512, corpus.pad_id, "cpu") for _ in range(2))
    assert sum(len(ids) for ids, _ in first) == 50
    assert all(torch.equal(one[0], other[0]) for one, other in zip(first, second, strict=True))


def test_batches_are_padded_with_the_pad_id(corpus: Corpus) -> None:
    shortest = int(corpus.train.lengths.argmin())
    longest = int(corpus.train.lengths.argmax())
    ids, mask = to_tensors(corpus.train, np.array([shortest, longest]), pad_id=7)
    assert (ids[mask == 0] == 7).all()
    assert mask.sum(1).tolist() == corpus.train.lengths[[shortest, longest]].tolist()


@pytest.mark.parametrize("objective", ["hidden-state", "minilm-v2"])
def test_throughput_of_both_objectives(tiny_teacher: Teacher, objective: str) -> None:
    student = new_student(Arch(2, 4, 48, 64), load_config(tiny_teacher.path))
    assert measure_tokens_per_second(load_encoder(tiny_teacher.path), student, objective, 256, 0.05) > 0


def test_throughput_of_a_large_vocabulary_leaves_the_student_as_it_was(
    tiny_teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdnas.distill.throughput.LARGE_VOCABULARY", 1000)
    student = new_student(Arch(2, 4, 48, 64), load_config(tiny_teacher.path))
    before = {name: value.clone() for name, value in student.state_dict().items()}
    assert measure_tokens_per_second(load_encoder(tiny_teacher.path), student, "hidden-state", 256, 0.05) > 0
    after = student.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_throughput_rejects_an_unknown_objective(tiny_teacher: Teacher) -> None:
    teacher = load_encoder(tiny_teacher.path)
    with pytest.raises(UsageError, match="allowed are hidden-state, minilm-v2"):
        measure_tokens_per_second(teacher, teacher, "mlm", 256, 0.05)


@pytest.mark.parametrize(
    "wrong",
    [
        {"minutes": 0},
        {"steps": 0},
        {"batch_tokens": 0},
        {"peak_lr": -1.0},
        {"warmup_fraction": 1.0},
        {"weight_decay": -0.1},
        {"precision": "f16"},
        {"validations": 0},
        {"checkpoint_seconds": -1},
    ],
)
@pytest.mark.parametrize("options", [DistillOptions, RefineOptions])
def test_options_out_of_range_are_rejected(options: type, wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        options(**wrong)
