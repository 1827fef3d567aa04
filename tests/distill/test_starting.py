"""The start of a new student: `random` depends on the seed and the shape only, the others on the teacher's weights."""

import pytest
import torch
from torch import Tensor
from transformers import AutoModel, PreTrainedModel

from kdnas.distill.options import DistillOptions
from kdnas.distill.starting import start_student
from kdnas.distill.warm_start import TeacherLayers
from kdnas.errors import UsageError
from kdnas.models.arch import Arch
from kdnas.models.teacher import Teacher, load_encoder

ARCH = Arch(2, 12, 48, 64)


def started(teacher: PreTrainedModel, start: str, seed: int = 0) -> dict[str, Tensor]:
    ids = torch.randint(1000, 2000, (4, 8), generator=torch.Generator().manual_seed(0))
    layers = TeacherLayers(teacher, [(ids, torch.ones_like(ids))])
    return dict(start_student(ARCH, teacher, start, seed, layers).state_dict())


@pytest.mark.parametrize(("start", "same"), [("random", True), ("embeddings", False), ("layers", False)])
def test_only_the_random_start_is_independent_of_the_teachers_weights(
    tiny_teacher: Teacher, start: str, same: bool
) -> None:
    first = load_encoder(tiny_teacher.path)
    torch.manual_seed(7)
    other = AutoModel.from_config(first.config, add_pooling_layer=False).eval()
    ours, theirs = started(first, start), started(other, start)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours) == same
    assert not torch.equal(
        ours["embeddings.word_embeddings.weight"], started(first, "random", 1)["embeddings.word_embeddings.weight"]
    )


def test_unknown_starts_projections_and_scales_are_rejected() -> None:
    for name in ("start", "projections", "loss_scale"):
        with pytest.raises(UsageError, match=f"{name} is 'teacher'; allowed are "):
            DistillOptions(**{name: "teacher"})  # type: ignore[arg-type]
