"""A trained model on disk: a stock Hugging Face folder, alone or in the artifact of the stage that made it."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kdnas.models.family import FAMILIES, shape_of
from kdnas.models.head import Head, marks_of, read_prompts
from kdnas.models.pooling import pooling_of, write_modules
from kdnas.store.artifact import MANIFEST, Artifact
from kdnas.store.digest import file_sha256
from kdnas.store.json_files import fsync_folder, write_json
from kdnas.store.output import MODELS

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# The files that define a model: weights, configuration, fast tokenizer and pooling. Other tokenizer files repeat their content.
REQUIRED_FILES = ("model.safetensors", "config.json", "tokenizer.json")
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
)


def model_in(path: Path) -> Path:
    """The Hugging Face folder of a model: `student/` or `teacher/` of a finished artifact; any other path is returned unchanged.

    Raises:
        UsageError: the artifact is damaged or of a newer schema.
    """
    for name in MODELS:
        if (path / MANIFEST).is_file() and (path / name).is_dir():
            Artifact.load(path)
            return path / name
    return path


def model_digest(folder: Path) -> str:
    """The identity of a model in every command: SHA-256 over the hashes of the files that define it.

    The digest does not depend on the folder's path or on the command that made it.

    Args:
        folder: Hugging Face folder; missing files are left out.
    """
    files = [folder / name for name in REQUIRED_FILES if (folder / name).is_file()]
    pooling = pooling_of(folder)  # mean pooling does not change the digest
    marks = [*map(file_sha256, files), *([] if pooling == "mean" else [pooling]), *marks_of(folder)]
    return hashlib.sha256("".join(marks).encode()).hexdigest()


def model_label(folder: Path) -> str:
    """A readable name for a model's folder: the name of the folder or of its artifact; links are followed."""
    real = folder.resolve()
    return real.parent.name if real.name in MODELS else real.name


def save_model(folder: Path, model: "PreTrainedModel", tokenizer: Path, card: str, head: Head | None = None) -> None:
    """Write config, weights, tokenizer files and a card. The folder is created atomically.

    If the model has a head, or the tokenizer's model has prompts or is not pooled by the mean, the new folder gets
    sentence-transformers files with the same pooling and prompts.

    Args:
        folder: folder to write; an existing one is replaced.
        model: model on the CPU.
        tokenizer: folder with the tokenizer files, with or without a model.
        card: text of README.md.
        head: linear map of the pooled vector, for a model that was taught embeddings.
    """

    def write(target: Path) -> None:
        model.save_pretrained(target, safe_serialization=True)

    _save(folder, write, model.config.to_dict(), tokenizer, card, head)


def save_tensors(
    folder: Path, tensors: Mapping[str, np.ndarray], config: Mapping[str, Any], tokenizer: Path, card: str
) -> None:
    """Like `save_model`, for tensors by name and the content of config.json; without torch and transformers."""
    from safetensors.numpy import save_file

    def write(target: Path) -> None:
        target.mkdir(parents=True)
        write_json(target / "config.json", config)
        contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
        save_file(contiguous, target / "model.safetensors", metadata={"format": "pt"})

    _save(folder, write, config, tokenizer, card)


def _save(
    folder: Path,
    write: Callable[[Path], None],
    config: Mapping[str, Any],
    tokenizer: Path,
    card: str,
    head: Head | None = None,
) -> None:
    writing = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(writing, ignore_errors=True)
    write(writing)
    copy_tokenizer(tokenizer, writing)
    fit_tokenizer(tokenizer, writing, config["model_type"])
    pooling, prompts = pooling_of(tokenizer), read_prompts(tokenizer)
    if pooling != "mean" or head is not None or prompts.texts:
        shape = shape_of(config)
        write_modules(writing, shape.hidden, shape.positions, pooling, head, prompts)
    (writing / "README.md").write_text(card)
    for file in (path for path in writing.rglob("*") if path.is_file()):
        with file.open("rb") as written:
            os.fsync(written.fileno())
    shutil.rmtree(folder, ignore_errors=True)
    os.rename(writing, folder)
    fsync_folder(folder.parent)


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy the tokenizer files from one model's folder to another."""
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def fit_tokenizer(source: Path, target: Path, model_type: str) -> None:
    """Make a copied tokenizer loadable with a model of another `model_type`.

    The class in `tokenizer_config.json` becomes the class that the source's family specifies for its students. It keeps the
    special tokens of the previous class. `tokenizer.json` is unchanged.

    Args:
        source: folder of the original tokenizer; without a model in it nothing is changed.
        target: folder with the copy.
        model_type: type of the model in `target`.
    """
    if not (source / "config.json").is_file():
        return
    family = FAMILIES.get(json.loads((source / "config.json").read_text()).get("model_type"))
    if family is None or family.model_type == model_type or family.student_tokenizer is None:
        return
    from transformers import AutoTokenizer

    known = AutoTokenizer.from_pretrained(source, local_files_only=True, trust_remote_code=False, use_fast=True)
    file = target / "tokenizer_config.json"
    settings = json.loads(file.read_text()) if file.is_file() else {}
    settings = {
        name: str(token) for name, token in known.special_tokens_map.items() if isinstance(token, str)
    } | settings
    settings["tokenizer_class"] = family.student_tokenizer
    for name in ("model_input_names", "auto_map"):
        settings.pop(name, None)
    write_json(file, settings)
