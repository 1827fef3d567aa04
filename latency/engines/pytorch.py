"""Eager PyTorch on the CPU, stock models."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from kdnas.latency.engines import CHAIN, REFERENCE, Call, Chain, random_sentence
from kdnas.models.arch import Arch
from kdnas.models.engine import Engine, Precision, require_native

require = require_native


def make_models(engine: Engine, config: Any, seed: int, threads: int, graphs: Path) -> "PytorchModels":
    """Models in an engine's precision; no graphs are needed."""
    return PytorchModels(engine, config, seed, threads)


class PytorchModels:
    """Eager PyTorch, stock models."""

    def __init__(self, engine: Engine, config: Any, seed: int, threads: int) -> None:
        import torch

        from kdnas.latency.timing import ModelMaker

        torch.set_num_threads(threads)
        self._config = config
        self._maker = ModelMaker(config, seed, torch_dtype(engine))

    def student(self, arch: Arch) -> Call:
        return self._maker.student(arch)

    def teacher(self) -> Call:
        return self._maker.model(self._config)

    def reference(self) -> Call:
        return self._maker.student(REFERENCE)

    def sentence(self, length: int, seed: int) -> dict[str, Any]:
        import torch

        return {name: torch.from_numpy(value) for name, value in random_sentence(length, self._config, seed).items()}


def torch_dtype(engine: Engine) -> Any:
    """The `torch.dtype` of an engine's precision."""
    import torch

    return torch.bfloat16 if engine.precision is Precision.BF16 else torch.float32


def product_chain(engine: Engine, threads: int, inner: int, outer: int) -> Chain:
    """Makes, for a number of tokens, a call of CHAIN linear layers, from `inner` to `outer` and back."""
    import torch
    from torch.nn.functional import linear

    torch.set_num_threads(threads)
    dtype = torch_dtype(engine)
    there = (torch.randn(outer, inner) / inner**0.5).to(dtype)
    back = (torch.randn(inner, outer) / outer**0.5).to(dtype)

    def make(tokens: int) -> Callable[[], object]:
        first = torch.randn(tokens, inner).to(dtype)

        def run() -> object:
            states = first
            with torch.inference_mode():
                for _ in range(CHAIN // 2):
                    states = linear(linear(states, there), back)
            return states

        return run

    return make
