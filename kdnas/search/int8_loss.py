"""What 8-bit kernels would compute, so that a loss can be measured for an int8 engine without exporting anything."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def as_int8(model: nn.Module) -> Iterator[None]:
    """Within it all linear maps have 8-bit weights, a scale for each output, and 8-bit inputs, a scale for each call.

    That is dynamic quantisation as ONNX Runtime does it; the weights are as before in the end.
    """
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    before = [linear.weight.detach().clone() for linear in linears]
    handles = [
        linear.register_forward_pre_hook(lambda _, inputs: (rounded(inputs[0]), *inputs[1:])) for linear in linears
    ]
    try:
        with torch.no_grad():
            for linear in linears:
                linear.weight.copy_(rounded(linear.weight, dim=1))
        yield
    finally:
        for handle in handles:
            handle.remove()
        with torch.no_grad():
            for linear, weight in zip(linears, before, strict=True):
                linear.weight.copy_(weight)


def rounded(values: Tensor, dim: int | None = None) -> Tensor:
    """Values on a grid of 8 bits: of all of them from the least to the largest, or, along `dim`, symmetric about 0."""
    if dim is not None:
        step = values.abs().amax(dim, keepdim=True).clamp(min=1e-12) / 127
        return (values / step).round() * step
    low, high = values.min().clamp(max=0), values.max().clamp(min=0)
    step = ((high - low) / 255).clamp(min=1e-12)
    return ((values - low) / step).round() * step + low
