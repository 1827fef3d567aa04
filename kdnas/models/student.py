"""Students: an `Arch` as a stock Hugging Face model of the family that the teacher's family chooses for students."""

import torch
from transformers import AutoModel, PretrainedConfig, PreTrainedModel

from kdnas.models.arch import Arch
from kdnas.models.family import family_of, shape_of


def student_config(arch: Arch, teacher: PretrainedConfig) -> PretrainedConfig:
    """Configuration of a student: the shape of the architecture with the teacher's vocabulary and positions."""
    return family_of(teacher).student_config(arch, teacher)


def new_encoder(config: PretrainedConfig) -> PreTrainedModel:
    """A randomly initialised encoder with this configuration, without pooler."""
    return AutoModel.from_config(config, **family_of(config).without_pooler)


def new_student(arch: Arch, teacher: PretrainedConfig) -> PreTrainedModel:
    """A randomly initialised student without pooler (seed torch first for a reproducible one)."""
    return new_encoder(student_config(arch, teacher))


def student_from_teacher(arch: Arch, teacher: PreTrainedModel, seed: int) -> PreTrainedModel:
    """A student with embeddings from the teacher and random layers.

    The best linear map between the two widths for a table E (V, D_T) is its truncated SVD, E = U S W'. The student's rows are
    E W[:, :D_S], shape (V, D_S). A wider student gets all of E, padded with zeros, so nothing is lost. Position embeddings, type
    embeddings and the layer norm after them use the same map. Types that the teacher does not have start at zero. Position rows
    that the teacher's family does not use are dropped if the student's family does not have them.
    """
    torch.manual_seed(seed)
    student = new_student(arch, teacher.config)
    family = family_of(teacher.config)
    source, target = family.embeddings(teacher), family.students.embeddings(student)
    unused = len(source.positions.weight) - len(target.positions.weight)
    assert target.types is not None  # all families of students have token types
    tables = [
        (source.words.weight, target.words.weight),
        (source.positions.weight[unused:], target.positions.weight),
        (None if source.types is None else source.types.weight, target.types.weight),
    ]
    with torch.no_grad():
        basis = principal_basis(source.words.weight.float(), arch.hidden)
        for table, weight in tables:
            weight.zero_()
            if table is not None:
                mapped = table.float() @ basis
                weight[:, : mapped.shape[1]] = mapped
        put_norm(target.norm, source.norm, basis)
    return student


def principal_basis(table: torch.Tensor, width: int) -> torch.Tensor:
    """Leading right singular vectors of `table` (V, D), shape (D, width); the identity (D, D) if `width` is at least D."""
    if width >= table.shape[1]:
        return torch.eye(table.shape[1], dtype=table.dtype, device=table.device)
    _, vectors = torch.linalg.eigh(table.T @ table)  # ascending eigenvalues
    return vectors.flip(1)[:, :width]


def arch_of(config: PretrainedConfig) -> Arch:
    """The architecture that a configuration describes.

    Raises:
        UsageError: kdnas does not know the family, or no student can have the shape.
    """
    return shape_of(config).arch


def put_norm(norm: torch.nn.Module, source: torch.nn.Module, basis: torch.Tensor) -> None:
    """Set a layer norm to `source` in another basis (D_T, D_S). Only the diagonal of the mapped scale is kept.

    Dimensions beyond the teacher's size stay unchanged.
    """
    width = basis.shape[1]
    norm.weight[:width] = (basis.square() * source.weight[:, None]).sum(0)
    norm.bias[:width] = basis.T @ source.bias
