"""A static embedding model: a vector for each token, averaged over the tokens of a text, as sentence-transformers stores it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdnas.errors import UsageError
from kdnas.models.head import MODULES, PROMPTS
from kdnas.store.json_files import write_json

NORMALIZE = "1_Normalize"
TABLE = "embedding.weight"  # name of the tensor in sentence-transformers
TYPES = {"": "StaticEmbedding", NORMALIZE: "Normalize"}


@dataclass(frozen=True)
class StaticModel:
    """A table of token vectors and its tokenizer.

    Args:
        table: (V, D) float32.
        tokenizer: a `tokenizers.Tokenizer`.
    """

    table: np.ndarray
    tokenizer: Any

    def ids(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens."""
        return [encoding.ids for encoding in self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

    def vector(self, ids: list[int]) -> np.ndarray:
        """Unit vector (D,) of a text's token ids; zeros for a text without tokens."""
        if not ids:
            return np.zeros(self.table.shape[1], dtype=np.float32)
        mean = self.table[ids].mean(0)
        return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-12))


def is_static(folder: Path) -> bool:
    """Whether a folder has a static model.

    Raises:
        UsageError: its `modules.json` cannot be read.
    """
    file = folder / MODULES
    if not file.is_file():
        return False
    try:
        return any(str(module["type"]).endswith(".StaticEmbedding") for module in json.loads(file.read_text()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{file}: cannot be read ({error}); write the model again") from error


def bare_tokenizer(file: Path) -> Any:
    """A `tokenizers.Tokenizer` that neither pads nor cuts, as static models use it.

    Raises:
        UsageError: the file is missing or damaged.
    """
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises plain Exception for a missing or damaged file
        raise UsageError(f"{file}: cannot be read ({error}); write the model again") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def read_static(folder: Path) -> StaticModel:
    """The static model in a folder.

    Raises:
        UsageError: a file is missing or damaged.
    """
    from safetensors.numpy import load_file

    file = folder / "model.safetensors"
    try:
        table = load_file(file)[TABLE].astype(np.float32)
    except Exception as error:  # safetensors raises its own error for a damaged file
        raise UsageError(f"{file}: cannot be read ({error}); write the model again") from error
    return StaticModel(table, bare_tokenizer(folder / "tokenizer.json"))


def write_static(folder: Path, model: StaticModel, card: str) -> None:
    """Write the files of a static model, the list of its modules last."""
    from safetensors.numpy import save_file

    (folder / NORMALIZE).mkdir(parents=True, exist_ok=True)
    save_file({TABLE: np.ascontiguousarray(model.table)}, folder / "model.safetensors", metadata={"format": "pt"})
    model.tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / NORMALIZE / "config.json", {})
    write_json(folder / PROMPTS, {"similarity_fn_name": "cosine"})
    (folder / "README.md").write_text(card)
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (path, kind) in enumerate(TYPES.items())
    ]
    write_json(folder / MODULES, modules)
