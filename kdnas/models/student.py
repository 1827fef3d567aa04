"""Students: an `Arch` as a stock Hugging Face model of the family that its teacher's students have."""

import torch
from transformers import AutoModel, PretrainedConfig, PreTrainedModel

from kdnas.models.arch import Arch
from kdnas.models.family import family_of, shape_of


def student_config(arch: Arch, teacher: PretrainedConfig) -> PretrainedConfig:
    """Configuration of a student: the architecture's shape, and the teacher's vocabulary and positions."""
    return family_of(teacher).student_config(arch, teacher)


def new_encoder(config: PretrainedConfig) -> PreTrainedModel:
    """A randomly initialised encoder of this configuration, without pooler."""
    return AutoModel.from_config(config, **family_of(config).without_pooler)


def new_student(arch: Arch, teacher: PretrainedConfig) -> PreTrainedModel:
    """A randomly initialised student without pooler (seed torch first for a reproducible one)."""
    return new_encoder(student_config(arch, teacher))


def student_from_teacher(arch: Arch, teacher: PreTrainedModel, seed: int) -> PreTrainedModel:
    """A student whose embeddings come from the teacher's; layers are random.

    The best linear map between the two widths for a table E (V, D_T) is its truncated SVD: E = U S W', student rows
    E W[:, :D_S], shape (V, D_S). A wider student keeps all of E and gets zeros beyond it, so nothing is lost.
    Position and type embeddings take the same map, and the layer norm behind them. Types that the teacher does not have start
    at zero, and position rows that its family leaves unused are dropped where the student's does not have them.
    """
    torch.manual_seed(seed)
    student = new_student(arch, teacher.config)
    family = family_of(teacher.config)
    source, target = family.embeddings(teacher), family.students.embeddings(student)
    unused = len(source.positions.weight) - len(target.positions.weight)
    assert target.types is not None  # all families of students have them
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
    """Leading right singular vectors of `table` (V, D), shape (D, width); all axes as they are where `width` is D or more."""
    if width >= table.shape[1]:
        return torch.eye(table.shape[1], dtype=table.dtype, device=table.device)
    _, vectors = torch.linalg.eigh(table.T @ table)  # ascending eigenvalues
    return vectors.flip(1)[:, :width]


def arch_of(config: PretrainedConfig) -> Arch:
    """The architecture that a configuration describes.

    Raises:
        UsageError: a family that kdnas does not know, or a shape that no student has.
    """
    return shape_of(config).arch


def put_norm(norm: torch.nn.Module, source: torch.nn.Module, basis: torch.Tensor) -> None:
    """A layer norm in another basis (D_T, D_S): of its scale what is left on the diagonal; none beyond the teacher's width."""
    width = basis.shape[1]
    norm.weight[:width] = (basis.square() * source.weight[:, None]).sum(0)
    norm.bias[:width] = basis.T @ source.bias
