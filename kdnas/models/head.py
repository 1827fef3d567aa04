"""What a sentence-transformers folder says besides the pooling: a linear head after it (`Dense`), and prompts before the text."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kdnas.errors import UsageError
from kdnas.store.digest import file_sha256
from kdnas.store.json_files import write_json

MODULES, DENSE, PROMPTS = "modules.json", "2_Dense", "config_sentence_transformers.json"
WEIGHT, BIAS = "linear.weight", "linear.bias"  # names of the tensors in sentence-transformers
IDENTITY = "torch.nn.modules.linear.Identity"
KNOWN = ("Transformer", "Pooling", "Dense", "Normalize")


@dataclass(frozen=True)
class Head:
    """A linear map from a model's pooled vector to its embedding, before the normalisation to unit length.

    Args:
        weight: (D_out, D_in) float32.
        bias: (D_out,) float32.
    """

    weight: np.ndarray
    bias: np.ndarray

    @property
    def outputs(self) -> int:
        return int(self.weight.shape[0])

    def __call__(self, pooled: np.ndarray) -> np.ndarray:
        """(B, D_in) -> (B, D_out)."""
        return np.asarray(pooled @ self.weight.T + self.bias)


@dataclass(frozen=True)
class Prompts:
    """Texts that a model expects before its input, by name, and the name that is used by default, if any."""

    texts: Mapping[str, str] = field(default_factory=dict)
    default: str | None = None

    def text(self, name: str | None) -> str:
        """The prompt of a name; of None the default prompt, or nothing.

        Raises:
            UsageError: there is no prompt of this name.
        """
        name = self.default if name is None else name
        if name is None:
            return ""
        if name not in self.texts:
            raise UsageError(f"there is no prompt '{name}'; the model has {', '.join(self.texts) or 'none'}")
        return self.texts[name]


def head_file(folder: Path) -> Path | None:
    """The weights of the linear head in a model's folder; None if `modules.json` names no head.

    Raises:
        UsageError: `modules.json` cannot be read, or names several heads.
    """
    paths = [module["path"] for module in _modules(folder) if module["type"].endswith(".Dense")]
    if not paths:
        return None
    if len(paths) > 1:
        raise UsageError(f"{folder / MODULES}: {len(paths)} Dense modules; models with one at most are supported")
    return folder / paths[0] / "model.safetensors"


def read_head(folder: Path) -> Head | None:
    """The linear head of a model; None if it has none.

    Raises:
        UsageError: a file is missing or damaged, the head is not linear, or the folder has other modules.
    """
    names = [module["type"].rsplit(".", 1)[-1] for module in _modules(folder)]
    if strange := [name for name in names if name not in KNOWN]:
        raise UsageError(f"{folder / MODULES}: module {strange[0]} is not supported; allowed are {', '.join(KNOWN)}")
    file = head_file(folder)
    if file is None:
        return None
    from safetensors.numpy import load_file

    try:
        settings: dict[str, Any] = json.loads((file.parent / "config.json").read_text())
        tensors = load_file(file)
        weight = tensors[WEIGHT].astype(np.float32)
        bias = tensors[BIAS].astype(np.float32) if settings.get("bias", True) else np.zeros(len(weight), np.float32)
    except Exception as error:  # safetensors raises its own error for a damaged file
        raise UsageError(f"{file}: cannot be read ({error}); write the model again") from error
    if not str(settings.get("activation_function", "Tanh")).endswith(".Identity"):
        raise UsageError(
            f"{file.parent / 'config.json'}: activation {settings.get('activation_function')}; only linear heads are supported"
        )
    return Head(weight, bias)


def write_head(folder: Path, head: Head) -> None:
    """Write the files of a `Dense` module, without naming it in `modules.json`."""
    from safetensors.numpy import save_file

    target = folder / DENSE
    target.mkdir(exist_ok=True)
    outputs, inputs = head.weight.shape
    write_json(
        target / "config.json",
        {"in_features": inputs, "out_features": outputs, "bias": True, "activation_function": IDENTITY},
    )
    tensors = {WEIGHT: head.weight, BIAS: head.bias}
    save_file(
        {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in tensors.items()},
        target / "model.safetensors",
        metadata={"format": "pt"},
    )


def read_prompts(folder: Path) -> Prompts:
    """The prompts in a model's `config_sentence_transformers.json`, without empty ones.

    Raises:
        UsageError: the file is damaged, or the model leaves its prompts out of the pooling.
    """
    file = folder / PROMPTS
    if not file.is_file():
        return Prompts()
    try:
        settings: dict[str, Any] = json.loads(file.read_text())
        texts = {str(name): str(text) for name, text in (settings.get("prompts") or {}).items() if text}
        default = settings.get("default_prompt_name")
        paths = [module["path"] for module in _modules(folder) if module["type"].endswith(".Pooling")]
        pooling = [json.loads((folder / path / "config.json").read_text()) for path in paths]
    except (OSError, ValueError, AttributeError, KeyError) as error:
        raise UsageError(f"{file}: cannot be read ({error}); fix it, or delete it to use no prompts") from error
    if texts and any(one.get("include_prompt") is False for one in pooling):
        raise UsageError(f"{folder}: pools without the tokens of its prompts (include_prompt), which is not supported")
    return Prompts(texts, default if default in texts else None)


def marks_of(folder: Path) -> list[str]:
    """What head and prompts add to a model's digest; empty for a model without them."""
    file, prompts = head_file(folder), read_prompts(folder)
    marks = [file_sha256(file)] if file is not None and file.is_file() else []
    return marks + ([json.dumps([dict(prompts.texts), prompts.default])] if prompts.texts else [])


def _modules(folder: Path) -> list[dict[str, str]]:
    file = folder / MODULES
    if not file.is_file():
        return []
    try:
        return [{"path": str(module["path"]), "type": str(module["type"])} for module in json.loads(file.read_text())]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{file}: cannot be read ({error}); fix it, or delete it to pool by the mean") from error
