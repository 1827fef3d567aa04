"""The contrastive term of embeddings: each text must find its partner among all partners of the batch (InfoNCE).

arXiv 1807.03748, Eq. 4, with cosines divided by a temperature, in both directions, as in CLIP (arXiv 2103.00020, Figure 3).
"""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

TEMPERATURE = 0.05


def contrast(outputs: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Mean cross entropy (1,) of finding the partner, in both directions.

    Args:
        outputs: (2 N, D) vectors; row i and row N + i are partners.
        temperature: divides the cosines.
    """
    first, second = normalize(outputs, dim=-1).chunk(2)
    scores = first @ second.T / temperature
    wanted = torch.arange(len(first), device=outputs.device)
    return ((cross_entropy(scores, wanted) + cross_entropy(scores.T, wanted)) / 2).reshape(1)
