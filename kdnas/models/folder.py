"""A trained model on disk: a stock Hugging Face folder, alone or in the artifact of the stage that made it."""

import hashlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from kdnas.store.artifact import MANIFEST, Artifact, file_sha256, fsync_folder
from kdnas.store.output import MODELS

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# What defines a model: weights, configuration and the fast tokenizer. The other tokenizer files say the same in other forms.
DEFINING_FILES = ("model.safetensors", "config.json", "tokenizer.json")
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
    """The Hugging Face folder of a model: `student/` or `teacher/` of a finished artifact, any other path as it stands.

    Raises:
        UsageError: the artifact is damaged or of a newer schema.
    """
    for name in MODELS:
        if (path / MANIFEST).is_file() and (path / name).is_dir():
            Artifact.load(path)
            return path / name
    return path


def model_digest(folder: Path) -> str:
    """The identity of a model, the same in every command: SHA-256 over the hashes of the files that define it.

    Where the folder lies, and which command made it, does not matter.

    Args:
        folder: Hugging Face folder; a file that it lacks is left out.
    """
    files = [folder / name for name in DEFINING_FILES if (folder / name).is_file()]
    return hashlib.sha256("".join(map(file_sha256, files)).encode()).hexdigest()


def model_label(folder: Path) -> str:
    """A readable name of a model's folder: its own, or that of the artifact it belongs to; links are followed."""
    real = folder.resolve()
    return real.parent.name if real.name in MODELS else real.name


def save_model(folder: Path, model: "PreTrainedModel", tokenizer: Path, card: str) -> None:
    """Write config, weights, tokenizer files and a card; the folder appears whole or not at all.

    Args:
        folder: must not hold anything else.
        model: on the CPU.
        tokenizer: folder of the tokenizer files.
        card: text of README.md.
    """
    writing = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(writing, ignore_errors=True)
    model.save_pretrained(writing, safe_serialization=True)
    copy_tokenizer(tokenizer, writing)
    (writing / "README.md").write_text(card)
    for file in writing.iterdir():
        with file.open("rb") as written:
            os.fsync(written.fileno())
    shutil.rmtree(folder, ignore_errors=True)
    os.rename(writing, folder)
    fsync_folder(folder.parent)


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy the tokenizer files of a model's folder into another one's."""
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
