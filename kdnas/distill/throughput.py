"""Measured training throughput, to estimate the hours of a plan."""

from itertools import repeat
from typing import Literal

import numpy as np
import torch
from transformers import PreTrainedModel

from kdnas.distill.batches import Batch
from kdnas.distill.cut_table import cut_table, restore_table
from kdnas.distill.hidden_state import HiddenStateLoss, HiddenStateObjective, TeacherStates
from kdnas.distill.loop import make_accelerator, seconds_per_step, use_all_cores
from kdnas.distill.mapping import Mapping, layer_pairs
from kdnas.distill.options import LARGE_VOCABULARY, LoopOptions
from kdnas.distill.relation import RelationObjective, Relations, resolve_relation_heads, resolve_teacher_layer
from kdnas.errors import UsageError
from kdnas.models.family import shape_of

OBJECTIVES = ("hidden-state", "minilm-v2")
WARM_STEPS = 2


def make_objective(
    teacher: PreTrainedModel, student: PreTrainedModel, objective: str
) -> HiddenStateObjective | RelationObjective:
    """An objective with its published settings, for timing.

    Raises:
        UsageError: the objective is unknown, or the student is deeper than its teacher.
    """
    ours, theirs = shape_of(student.config), shape_of(teacher.config)
    if objective == "hidden-state":
        pairs = layer_pairs(ours.layers, theirs.layers, Mapping.UNIFORM_LAST)
        loss = HiddenStateLoss(pairs, ours.hidden, theirs.hidden, None)
        return HiddenStateObjective(student, TeacherStates(teacher, [layer for _, layer in pairs]), loss)
    if objective == "minilm-v2":
        heads = resolve_relation_heads(None, ours.hidden, theirs.hidden)
        return RelationObjective(student, teacher, Relations(resolve_teacher_layer(None, theirs.layers), heads))
    raise UsageError(f"objective '{objective}': allowed are {', '.join(OBJECTIVES)}")


def measure_tokens_per_second(
    teacher_model: PreTrainedModel,
    student_model: PreTrainedModel,
    objective: str,
    batch_tokens: int,
    seconds: float,
    seq_len: int = 64,
    precision: Literal["auto", "bf16", "f32"] = "auto",
) -> float:
    """Tokens per second in real training steps on random token ids. Weights are restored.

    Args:
        teacher_model: teacher; may be randomly initialised; it is not changed.
        student_model: student to train.
        objective: `hidden-state` or `minilm-v2`.
        batch_tokens: tokens per batch.
        seconds: time limit in seconds, with two warm-up steps; at least one step is timed.
        seq_len: tokens per sentence.
        precision: `auto`, `bf16` or `f32`.
    """
    use_all_cores()
    teacher_model.requires_grad_(False).eval()
    student_model.requires_grad_(True).eval()
    accelerator = make_accelerator(precision)
    module = make_objective(teacher_model, student_model, objective).to(accelerator.device)
    teacher_model.to(accelerator.device)
    batch = _random_batch(student_model, batch_tokens, seq_len, accelerator.device)
    if student_model.config.vocab_size > LARGE_VOCABULARY:
        cut_table(student_model, np.unique(batch[0].cpu().numpy()))
    options = LoopOptions(precision=precision)
    step_seconds = seconds_per_step(module, repeat(batch), options, WARM_STEPS, seconds)
    restore_table(student_model)
    return batch[0].numel() / step_seconds


def _random_batch(model: PreTrainedModel, batch_tokens: int, seq_len: int, device: torch.device) -> Batch:
    low, high = min(10, model.config.vocab_size - 1), model.config.vocab_size
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(low, high, (max(1, batch_tokens // seq_len), seq_len), generator=generator).to(device)
    return ids, torch.ones_like(ids)
