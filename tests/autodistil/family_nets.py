"""A tiny net of each family of students, with random tensors."""

import torch
from transformers import AutoConfig, AutoModel, PreTrainedModel

from kdnas.autodistil.sub_space import SubSpace

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
