"""Students: an `Arch` as a stock Hugging Face model of its teacher's family."""

import torch
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel

from kdnas.models.arch import Arch


def student_config(arch: Arch, teacher: PretrainedConfig) -> PretrainedConfig:
    """Configuration of a student: the teacher's family, vocabulary and positions; the architecture's shape."""
    values = teacher.to_dict()
    for key in ("architectures", "_name_or_path", "id2label", "label2id", "dtype", "torch_dtype", "model_type"):
        values.pop(key, None)
    values.update(
        num_hidden_layers=arch.layers,
        num_attention_heads=arch.heads,
        hidden_size=arch.hidden,
        intermediate_size=arch.ffn,
        hidden_act=arch.activation,
    )
    return AutoConfig.for_model(teacher.model_type, **values)


def new_student(arch: Arch, teacher: PretrainedConfig) -> PreTrainedModel:
    """A randomly initialised student without pooler (seed torch first for a reproducible one)."""
    return AutoModel.from_config(student_config(arch, teacher), add_pooling_layer=False)


def student_from_teacher(arch: Arch, teacher: PreTrainedModel, seed: int) -> PreTrainedModel:
    """A student whose embeddings come from the teacher's; layers are random.

    The best linear map between the two widths for a table E (V, D_T) is its truncated SVD: E = U S W', student rows
    E W[:, :D_S], shape (V, D_S). A wider student keeps all of E and gets zeros beyond it, so nothing is lost.
    Position and type embeddings take the same map, and the layer norm behind them.
    """
    torch.manual_seed(seed)
    student = new_student(arch, teacher.config)
    source, target = teacher.embeddings, student.embeddings
    with torch.no_grad():
        basis = principal_basis(source.word_embeddings.weight.float(), arch.hidden)
        for name in ("word_embeddings", "position_embeddings", "token_type_embeddings"):
            mapped = getattr(source, name).weight.float() @ basis
            weight = getattr(target, name).weight
            weight.zero_()
            weight[:, : mapped.shape[1]] = mapped
        put_norm(target.LayerNorm, source.LayerNorm, basis)
    return student


def principal_basis(table: torch.Tensor, width: int) -> torch.Tensor:
    """Leading right singular vectors of `table` (V, D), shape (D, width); all axes as they are where `width` is D or more."""
    if width >= table.shape[1]:
        return torch.eye(table.shape[1], dtype=table.dtype, device=table.device)
    _, vectors = torch.linalg.eigh(table.T @ table)  # ascending eigenvalues
    return vectors.flip(1)[:, :width]


def arch_of(config: PretrainedConfig) -> Arch:
    """The architecture of a BERT-like configuration."""
    return Arch(
        config.num_hidden_layers,
        config.num_attention_heads,
        config.hidden_size,
        config.intermediate_size,
        config.hidden_act,
    )


def put_norm(norm: torch.nn.Module, source: torch.nn.Module, basis: torch.Tensor) -> None:
    """A layer norm in another basis (D_T, D_S): of its scale what is left on the diagonal; none beyond the teacher's width."""
    width = basis.shape[1]
    norm.weight[:width] = (basis.square() * source.weight[:, None]).sum(0)
    norm.bias[:width] = basis.T @ source.bias
