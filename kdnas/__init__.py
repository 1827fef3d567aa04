"""kdnas: find, distil and ship the fastest text encoder that a given CPU can run.

    session = kdnas.Session("artifacts/latest/encoder")
    student = kdnas.distill(arch="4,12,384,768,gelu", corpus="my.jsonl", minutes=10)

The functions have the same options as the commands, return a result with `path` and `results`, and print nothing. To see their
messages, set the level of the logger `kdnas` to INFO. The functions import what they need on first use.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

# From 1.29 on ONNX Runtime for Linux sends names and hashes of models to its maker unless this is set before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
__all__ = [
    "Arch",
    "Client",
    "SearchSpace",
    "Session",
    "autodistil",
    "distill",
    "evaluate",
    "export",
    "extract",
    "filter_documents",
    "hap",
    "latency_table",
    "pretrain",
    "refine",
    "search",
    "speed",
    "suites",
]
_CLASSES = {
    "Session": "kdnas.export.session",
    "Client": "kdnas.serving.client",
    "Arch": "kdnas.models.arch",
    "SearchSpace": "kdnas.models.arch",
}
# Callable subpackages, see `kdnas.interface.CallablePackage`.
_PACKAGES = ("autodistil", "distill", "export", "pretrain", "search")

if TYPE_CHECKING:
    from collections.abc import Callable

    from kdnas import autodistil, distill, export, pretrain, search
    from kdnas.export.session import Session
    from kdnas.models.arch import Arch, SearchSpace
    from kdnas.serving.client import Client
    from kdnas.store.outcome import Result

    evaluate: Callable[..., Result]
    extract: Callable[..., Result]
    filter_documents: Callable[..., Result]
    hap: Callable[..., Result]
    latency_table: Callable[..., Result]
    refine: Callable[..., Result]
    speed: Callable[..., Result]
    suites: Callable[..., list[Result]]


def __getattr__(name: str) -> Any:
    if name in _CLASSES:
        found = getattr(import_module(_CLASSES[name]), name)
    elif name in _PACKAGES:
        return import_module(f"kdnas.{name}")
    elif name in __all__:
        from kdnas.interface import function_of

        found = function_of(name)
    else:
        raise AttributeError(f"module 'kdnas' has no attribute '{name}'")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
