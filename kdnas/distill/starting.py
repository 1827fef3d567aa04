"""The start of a new student: its teacher's layers, only its embeddings, or random weights."""

import torch
from transformers import PreTrainedModel

from kdnas.distill.warm_start import TeacherLayers
from kdnas.models.arch import Arch
from kdnas.models.student import new_student, student_from_teacher


def start_student(
    arch: Arch, teacher: PreTrainedModel, start: str, seed: int, layers: TeacherLayers
) -> PreTrainedModel:
    """A new student without pooler. Distillation, refinement and the search's candidates start alike.

    Args:
        arch: the student's architecture.
        teacher: encoder without pooler.
        start: as `StudentOptions.start`. `random` takes only the vocabulary's size and the number of positions from the teacher.
        seed: seed of the random weights.
        layers: the teacher's layers, for the start `layers`.
    """
    if start == "random":
        torch.manual_seed(seed)
        return new_student(arch, teacher.config)
    student = student_from_teacher(arch, teacher, seed)
    if start == "layers":
        layers.start(student)
    return student
