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


def student_from_teacher(
    arch: Arch, teacher: PreTrainedModel, seed: int, basis: torch.Tensor | None = None
) -> PreTrainedModel:
    """A student with embeddings from the teacher and random layers.

    A row e of a table (V, D_T) becomes P' e for a basis P (D_T, D_S), so that the student's states are those of the teacher in
    this basis. A wider student gets all of e, padded with zeros. Position embeddings, type embeddings and the layer norm after
    them use the same basis. Types that the teacher does not have start at zero. Position rows that the teacher's family does not
    use are dropped if the student's family does not have them.

    Args:
        arch: the student's architecture.
        teacher: encoder without pooler.
        seed: seed of the random weights.
        basis: P; by default the principal directions of the word embeddings.
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
        if basis is None:
            words = source.words.weight.float()
            basis = principal_basis(words.T @ words, arch.hidden)
        for table, weight in tables:
            weight.zero_()
            if table is not None:
                mapped = table.float() @ basis
                weight[:, : mapped.shape[1]] = mapped
        put_norm(target.norm, source.norm, basis)
    return student


def principal_basis(moments: torch.Tensor, width: int) -> torch.Tensor:
    """Leading eigenvectors (D, width) of second moments (D, D); the identity (D, D) if `width` is at least D.

    Each has a positive entry of largest magnitude: an eigenvector is defined up to its sign.
    """
    if width >= len(moments):
        return torch.eye(len(moments), dtype=moments.dtype, device=moments.device)
    _, vectors = torch.linalg.eigh(moments.double())  # ascending eigenvalues
    leading = vectors.flip(1)[:, :width].to(moments.dtype)
    return leading * leading.gather(0, leading.abs().argmax(0, keepdim=True)).sign()


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
