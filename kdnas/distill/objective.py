"""What a training stage minimises."""

from torch import nn
from transformers import PreTrainedModel


class Objective(nn.Module):
    """Maps ids, mask and, for pairs of texts, token types (B, T) to a loss a part, (n_parts,), whose mean is minimised.

    Its parameters are what is trained.

    Its `student` is the encoder that learns, its `name` what manifests call it.
    """

    name: str
    student: PreTrainedModel
