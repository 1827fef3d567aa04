"""A tiny net of each family of students, with random tensors, and a finished family with such a net."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel

from kdnas.autodistil.cutting import sliced
from kdnas.autodistil.family import KIND, NET, member_rows, write_rows, write_space
from kdnas.autodistil.slices import skeleton
from kdnas.autodistil.sub_space import SubSpace
from kdnas.models.arch import Arch
from kdnas.models.folder import save_model
from kdnas.models.teacher import Teacher
from kdnas.store.artifact import Artifact, build

TYPES = ("bert", "roberta", "xlm-roberta")


def tiny_space(model_type: str = "bert", name: str = "tiny") -> SubSpace:
    """Depths 1 to 5, three feed-forward sizes, three numbers of heads."""
    return SubSpace(name, model_type, (1, 3, 4, 5), (2, 3, 6), 48, (8, 40, 96))


def tiny_net(space: SubSpace, vocabulary: int = 60) -> PreTrainedModel:
    """A stock model of the largest shape; its biases and norms are random, too."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        space.model_type,
        vocab_size=vocabulary,
        max_position_embeddings=40,
        num_hidden_layers=space.largest.layers,
        num_attention_heads=space.largest.heads,
        hidden_size=space.hidden,
        intermediate_size=space.largest.ffn,
        hidden_act=space.activation,
        initializer_range=0.1,
        pad_token_id=0,
    )
    net = AutoModel.from_config(config, add_pooling_layer=False).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return net


def tiny_batch(vocabulary: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask (3, 16) of three texts of different lengths."""
    generator = torch.Generator().manual_seed(1)
    mask = (torch.arange(16)[None] < torch.tensor([16, 9, 4])[:, None]).long()
    return torch.randint(1, vocabulary, (3, 16), generator=generator) * mask, mask


def extracted(
    tensors: Mapping[str, torch.Tensor], config: PretrainedConfig, space: SubSpace, arch: Arch
) -> PreTrainedModel:
    """A member as a stock model with copies of the net's tensors, made by torch.

    Its buffers that are not saved, such as the position ids, have no memory: save the model and load it to run it.
    """
    model = skeleton(arch, config)
    copies = {
        name: tensor.detach().clone(memory_format=torch.contiguous_format)
        for name, tensor in sliced(tensors, space, arch).items()
    }
    model.load_state_dict(copies, assign=True)
    return model


def extremes(space: SubSpace) -> list[Arch]:
    """Members that have the least or the most of every field."""
    return [
        Arch(layers, heads, space.hidden, ffn, space.activation)
        for layers in (space.layers[0], space.layers[-1])
        for heads in (space.heads[0], space.heads[-1])
        for ffn in (space.ffn[0], space.ffn[-1])
    ]


def untrained_family(home: Path, space: SubSpace, net: PreTrainedModel, tokenizer: Path) -> Artifact:
    """A family as `kdnas autodistil` publishes it, whose net was not trained; the loss of a member is its place in the list."""

    def work(folder: Path) -> dict[str, Any]:
        (folder / space.name).mkdir()
        save_model(folder / space.name / NET, net, tokenizer, "---\nlicense: mit\n---\n\n# A net\n")
        teacher = Teacher("a-teacher", Path(), net.config.to_dict(), "digest")
        write_space(folder, [space], teacher)
        scores = {
            arch: {"loss": 0.01 * number, "explained_variance": None} for number, arch in enumerate(space.members)
        }
        write_rows(folder, member_rows([space], scores, teacher.student_sizes.rows, {}))
        return {"members": len(space.members)}

    return build(home, KIND, "untrained", {"space": space.to_dict()}, {}, work)
