"""The protocol of objectives: a custom objective trains, validates and accepts cached targets like the others."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kdnas.distill.fit import prepare, train_alone
from kdnas.distill.hidden_state import HiddenStateLoss, HiddenStateObjective, TeacherStates, student_states
from kdnas.distill.loop import make_accelerator
from kdnas.distill.objective import Objective
from kdnas.distill.options import DistillOptions
from kdnas.distill.relation import RelationObjective, Relations
from kdnas.distill.validation import sample_batches, validate
from kdnas.models.arch import Arch
from kdnas.models.student import student_from_teacher
from kdnas.models.teacher import Teacher, load_encoder
from kdnas.text.corpus import Corpus

ARCH = Arch(2, 4, 96, 64)


class Cosine(Objective):
    """One minus the cosine similarity of the last states of teacher and student, which have the same width."""

    name = "cosine"

    def __init__(self, student: Any, teacher: TeacherStates) -> None:
        super().__init__()
        self.student, self.teacher = student, teacher

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None, targets: Any = None
    ) -> Tensor:
        (wanted,) = (targets or self.teacher(input_ids, attention_mask, token_type_ids)).values()
        ours = student_states(self.student, input_ids, attention_mask, token_type_ids)[-1]
        apart = 1 - torch.cosine_similarity(ours.float(), wanted.clone().float(), dim=-1)
        return ((apart * attention_mask).sum() / attention_mask.sum())[None]

    def metrics(self, losses: Tensor) -> dict[str, Any]:
        loss = float(losses.mean())
        return {"validation_loss": loss, "explained_variance": None, "layers": {}, "cosine": 1 - loss}


def test_custom_objective_trains_and_reports_its_metrics(tmp_path: Path, tiny_teacher: Teacher, corpus: Corpus) -> None:
    teacher = load_encoder(tiny_teacher.path)
    student = student_from_teacher(ARCH, teacher, seed=0).train()
    objective = Cosine(student, TeacherStates(teacher, [4]))
    accelerator = make_accelerator("f32")
    held_out = sample_batches(corpus.validation, 50, 512, corpus.pad_id, "cpu")
    before = validate(objective, held_out, accelerator)["cosine"]
    options = DistillOptions(
        steps=3, peak_lr=1e-3, batch_tokens=512, precision="f32", validations=1, validation_sentences=50
    )
    fitting = prepare(tmp_path, objective, corpus, options, accelerator, "distil", tiny_teacher.path)
    results = train_alone(fitting)
    assert results["validation_loss"] < 1 - before
    assert results["steps"] == 3


@pytest.mark.parametrize("kind", ["hidden-state", "minilm-v2"])
def test_cached_targets_give_the_same_loss_as_the_teacher(kind: str, tiny_teacher: Teacher) -> None:
    teacher = load_encoder(tiny_teacher.path)
    student = student_from_teacher(ARCH, teacher, seed=0).eval()
    ids = torch.randint(1000, 2000, (2, 7), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, 4:] = 0
    objective: HiddenStateObjective | RelationObjective
    if kind == "hidden-state":
        states = TeacherStates(teacher, [2, 4])
        loss = HiddenStateLoss([(1, 2), (2, 4)], 96, 96, None)
        objective = HiddenStateObjective(student, states, loss)
        cached = HiddenStateObjective(student, None, loss)(ids, mask, targets=states(ids, mask))
    else:
        objective = RelationObjective(student, teacher, Relations(4, 12))
        cached = objective(ids, mask, targets=objective._views[1](ids, mask))
    assert torch.equal(cached, objective(ids, mask))
